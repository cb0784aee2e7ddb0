"""Names of customers, whatever the project's function returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from orchestrator.errors import ConfigurationError
from orchestrator.services.customers import Customer, Customers

NOT_A_FUNCTION = 1


def plain(ids: Sequence[str]) -> Mapping[str, object]:
    return {one: one.upper() for one in ids}


@pytest.mark.parametrize(
    ("answer", "full", "short"),
    [
        ({"1": "Acme"}, "Acme", "1"),
        ({"1": ("Acme Inc.", "ACM")}, "Acme Inc.", "ACM"),
        ({"1": ["Acme Inc.", "ACM"]}, "Acme Inc.", "ACM"),
        ({"2": "Other"}, "1", "1"),
        ({"1": None}, "1", "1"),
        ({"1": ("Acme", 7)}, "1", "1"),
        ({"1": ("a", "b", "c")}, "1", "1"),
        ({"1": "a\ud800\0"}, "a?\\0", "1"),
        ({"1": "x" * 1000}, "x" * 500, "1"),
        (["Acme"], "1", "1"),
        (None, "1", "1"),
        (SystemExit(3), "1", "1"),
        (RuntimeError("the CRM is away"), "1", "1"),
    ],
)
async def test_whoever_is_not_named_is_shown_by_the_id(answer: Any, full: str, short: str) -> None:
    async def find(_: Sequence[str]) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    assert await Customers(find).find(["1"]) == {"1": Customer("1", full, short)}


async def test_a_plain_function_is_called_once_for_all_ids_and_not_for_none() -> None:
    called: list[Sequence[str]] = []

    def find(ids: Sequence[str]) -> Mapping[str, object]:
        called.append(ids)
        return plain(ids)

    customers = Customers(find)

    assert await customers.find([]) == {}
    assert {one.fullname for one in (await customers.find(["a", "b", "a"])).values()} == {"A", "B"}
    assert called == [["a", "b"]]
    assert await Customers().find(["a"]) == {"a": Customer("a", "a", "a")}


def test_the_function_is_named_by_module_and_name() -> None:
    Customers.of(None)
    Customers.of(f"{__name__}:plain")
    for wrong in (f"{__name__}:nothing", "no.such.module:plain", f"{__name__}:NOT_A_FUNCTION"):
        with pytest.raises(ConfigurationError, match=r"ORCHESTRATOR_CUSTOMERS: '.*'"):
            Customers.of(wrong)
