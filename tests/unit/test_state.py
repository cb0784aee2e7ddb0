"""B10: what may enter a process's state."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import to_json

from orchestrator.engine.state import (
    MAX_NESTING,
    canonical,
    check_size,
    is_flat,
    measure_nesting,
    read_leniently,
    read_object,
    read_value,
    store_and_read,
    write_json,
)
from orchestrator.errors import InvalidResultError

ID = UUID("6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d")


class Speed(Enum):
    FAST = 100


@dataclass
class Point:
    x: int


class Model(BaseModel):
    id: UUID
    at: datetime


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ID, str(ID)),
        (date(2024, 5, 1), "2024-05-01"),
        (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:00:00Z"),
        (timedelta(seconds=90), "PT1M30S"),
        (Decimal("1.10"), "1.10"),
        (Speed.FAST, 100),
        (Point(1), {"x": 1}),
        (Model(id=ID, at=datetime(2024, 5, 1, tzinfo=UTC)), {"id": str(ID), "at": "2024-05-01T00:00:00Z"}),
        (b"bytes", "bytes"),
        ((1, 2), [1, 2]),
        (10**30, 10**30),
    ],
)
def test_values_are_written_as_pydantic_writes_them(value: Any, expected: Any) -> None:
    assert canonical({"key": value}, "it") == {"key": expected}


def test_nothing_is_an_empty_delta() -> None:
    assert canonical(None, "it") == {}


def test_any_mapping_will_do() -> None:
    assert canonical(MappingProxyType({"a": 1}), "it") == {"a": 1}


json_documents = st.dictionaries(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "ß", '"\\']), inner),
        max_leaves=8,
    ),
    max_size=4,
)


flat_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["", "a", "\0", "\x7f", "ß", "\ud800", Speed.FAST, 2**63, -(2**63), 2**63 - 1])
)


@given(st.dictionaries(st.text(max_size=3), flat_values, max_size=4))
def test_a_flat_dict_is_what_is_read_after_it_was_written(document: dict[str, Any]) -> None:
    if is_flat(document):
        assert repr(store_and_read(document)) == repr(document)
        assert canonical(document, "it") is not document


@pytest.mark.parametrize(
    "value",
    [{}, {"a": 1, "b": "text", "c": None, "d": True}, {"a": 2**63 - 1, "b": 1 - 2**63}],
)
def test_short_texts_and_numbers_are_flat(value: object) -> None:
    assert is_flat(value)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], MappingProxyType({}), {1: 1}, {"ß": 1}, {"\0": 1}),
        *(
            {"a": "ß"},
            {"a": "\0"},
            {"a": 2**63},
            {"a": -(2**63)},
            {"a": 1.0},
            {"a": []},
            {"a": {}},
            {"a": Speed.FAST},
            {"a": ID},
        ),
    ],
)
def test_everything_else_is_written_and_read(value: object) -> None:
    assert not is_flat(value)


@given(json_documents)
def test_what_is_json_already_stays_as_it_is(document: dict[str, Any]) -> None:
    assert repr(canonical(document, "it")) == repr(with_positive_zeros(document))


def with_positive_zeros(value: Any) -> Any:
    """Return a value without negative zeros, which PostgreSQL does not have."""
    if isinstance(value, dict):
        return {key: with_positive_zeros(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_positive_zeros(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def as_postgresql_writes(number: str) -> str:
    """Return a number of a JSON text as ``jsonb`` gives it back: without an exponent, with the decimals that it has."""
    written = f"{Decimal(number):f}"
    return written if Decimal(number) else written.removeprefix("-")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**400), 10**400))
def test_a_number_stays_of_its_kind_and_value(number: float) -> None:
    """1e22 is written with a decimal point, or PostgreSQL would give back an integer."""
    written = as_postgresql_writes(write_json(number))
    assert repr(read_value(written)) == repr(store_and_read(number)) == repr(with_positive_zeros(number))


@pytest.mark.parametrize(
    "value", [1e22, -1.5e300, ["1e+22", 1e16], {"1e+22": 'a "1e+22"\\', "b": [1e23, "\\"]}, "1e+22", 5e-324]
)
def test_only_numbers_are_written_out(value: Any) -> None:
    text = write_json(value)
    assert json.loads(text) == value
    assert "e+" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", text)


@given(json_documents)
def test_what_has_entered_a_state_enters_it_again_unchanged(document: dict[str, Any]) -> None:
    once = canonical(document, "it")

    assert canonical(once, "it") == once


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), [float("nan")], {"a": float("nan")}])
def test_numbers_that_json_does_not_have_are_refused(value: Any) -> None:
    with pytest.raises(InvalidResultError, match="the form returned something that cannot be stored as JSON"):
        canonical({"key": value}, "the form")


@pytest.mark.parametrize("value", [object(), lambda: 1, type, "\udc00", b"\xff"])
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(InvalidResultError, match="the form returned something that cannot be stored as JSON"):
        canonical({"key": value}, "the form")


@pytest.mark.parametrize("returned", [{"a\0": 1}, {"a": "\0"}, {"a": [[{"b": "\0"}]]}, {"a": {"\0": 1}}])
def test_null_characters_are_refused_wherever_they_are(returned: dict[str, Any]) -> None:
    with pytest.raises(InvalidResultError, match="null character"):
        canonical(returned, "the form")


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    with pytest.raises(InvalidResultError, match="cannot be stored as JSON"):
        canonical({"a": deep}, "it")


def test_the_limits_count_bytes_of_the_whole_state() -> None:
    state = {"a": "é" * 10}  # 8 bytes around 20

    assert check_size(state, soft=28, hard=28) is None
    assert check_size(state, soft=27, hard=28) == (
        "the state has 28 bytes, more than the soft limit of 27 (ORCHESTRATOR_STATE_SOFT_LIMIT)"
    )
    with pytest.raises(
        InvalidResultError, match=r"would have 28 bytes, more than the limit of 27 \(ORCHESTRATOR_STATE_"
    ):
        check_size(state, soft=1, hard=27)


def nest(levels: int) -> Any:
    """Return a number in so many lists and dicts."""
    value: Any = 1
    for level in range(levels):
        value = {"[": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("within", [0, 1, 5])
def test_nesting_is_limited_where_a_value_is_stored(within: int) -> None:
    deepest = nest(MAX_NESTING - within)
    assert store_and_read(deepest, within=within) == deepest
    with pytest.raises(
        ValueError, match=rf"^it is nested {MAX_NESTING + 1} levels deep, and {MAX_NESTING} are the limit$"
    ):
        store_and_read([deepest], within=within)


def test_many_values_beside_each_other_are_not_deep() -> None:
    wide = [[[]], {"a": "]" * 500}] * 500
    assert store_and_read(wide) == wide


@given(json_documents)
def test_nesting_is_measured_whatever_the_texts_hold(document: dict[str, Any]) -> None:
    def depth(value: Any) -> int:
        if isinstance(value, dict | list):
            return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
        return 0

    assert measure_nesting(to_json(document)) == depth(document)


@given(json_documents)
def test_what_can_be_read_is_read_also_beside_what_cannot(document: dict[str, Any]) -> None:
    """Keys are any text; what PostgreSQL writes has blanks where pydantic writes none."""
    document.pop("\x01", None)
    expected = json.loads(json.dumps(document))
    for written in (json.dumps(document), to_json(document).decode()):
        assert read_object(written) == (expected, {})
        deep = "[" * 300 + "]" * 300
        spoilt = f'{{"\\u0001": {deep}{", " if document else ""}{written[1:]}'
        value, unreadable = read_object(spoilt)
        assert value == expected
        assert unreadable == {"\x01": "it is nested 300 levels deep, and 100 are the limit"}


@pytest.mark.parametrize("text", ["[1, 2]", '"text"', "1", "null", "[" * 300 + "]" * 300])
def test_a_state_that_is_no_object_cannot_be_read(text: str) -> None:
    value, unreadable = read_object(text)
    assert value == {}
    assert list(unreadable) == [""]


def test_people_see_what_cannot_be_read() -> None:
    assert read_leniently('{"a": 1, "b": ' + "9" * 5000 + "}") == {
        "a": 1,
        "b": "[cannot be read: it has a number out of range at line 1 column 4303]",
    }
