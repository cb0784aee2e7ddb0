"""Texts, lists of problems and values of log lines have limits, whatever their length was."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker.bytes_in_hand import AT_ONCE, SMALL, BytesInHand, bound_prefetch
from orchestrator.errors import ConflictError, InvalidInputError, MessageError
from orchestrator.forms import FormPage, Pages
from orchestrator.log_values import MAX_VALUE, cut_values
from orchestrator.messages import StartWorkflow, decode
from orchestrator.services.callbacks import MAX_DETAILS, _bound_failure, report_progress
from orchestrator.text import MAX_PROBLEMS, MAX_TEXT, bound_reasons

MANY = {f"f{number}": 1 for number in range(90_000)}


class Page(FormPage):
    name: str
    numbers: list[int] = Field(default_factory=list)
    vlan: Annotated[int, Field(validation_alias=AliasChoices("vlan_id", "vid"))] = 1


class Tolerant(FormPage):
    name: str

    @model_validator(mode="before")
    @classmethod
    def drop_others(cls, sent: dict[str, Any]) -> dict[str, Any]:
        return {"name": sent["name"]}


def refuse(sent: dict[str, Any]) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as refusal:
        Pages([sent], "the form").fill(Page)
    return refusal.value


def test_of_many_unknown_fields_the_first_are_named_and_the_others_counted() -> None:
    error = refuse({"name": 5, **MANY})
    assert len(json.dumps(error.reasons)) < 20_000
    assert error.reasons[0]["loc"] == ["name"]
    assert error.reasons[1]["loc"] == ["f0"]
    named = len(error.reasons) - 1
    assert error.reasons[-1] == {"key": "form.invalid", "loc": [], "msg": f"and {90_001 - named:,} more"}
    assert len(str(error)) < 1000
    assert str(error).endswith("more")


def test_of_many_wrong_items_the_first_are_named_and_the_others_counted() -> None:
    error = refuse({"name": "a", "numbers": ["x"] * 30_000})
    assert len(error.reasons) == MAX_PROBLEMS + 1
    assert error.reasons[-1]["msg"] == "and 29,900 more"


def test_a_field_with_a_name_of_a_megabyte_is_named_by_its_beginning() -> None:
    (problem,) = refuse({"name": "a", "x" * 1_000_000: 1}).reasons
    assert len(json.dumps(problem)) < 1000


def test_a_field_is_known_by_each_of_its_aliases_and_to_a_page_that_rewrites_its_input_everything_is() -> None:
    assert cast("Page", Pages([{"name": "a", "vid": 7}], "the form").fill(Page)).vlan == 7
    error = refuse({**MANY, "name": "a", "vid": "x"})
    assert error.reasons[0]["loc"] == ["vid"]
    assert cast("Tolerant", Pages([{"name": "a", **MANY}], "the form").fill(Tolerant)).name == "a"


def test_a_command_with_many_unknown_fields_is_refused_in_a_short_text() -> None:
    body = json.dumps({"workflow": "w", **MANY}).encode()
    with pytest.raises(MessageError) as refusal:
        decode(StartWorkflow, body)
    assert "f0: Extra inputs are not permitted" in str(refusal.value)
    assert str(refusal.value).endswith("and 89,995 more")
    with pytest.raises(MessageError, match="unknown message version"):
        decode(StartWorkflow, json.dumps({"version": 2, "workflow": "w", **MANY}).encode())


def test_the_text_of_an_error_has_a_limit_and_so_has_a_list_in_its_reasons() -> None:
    error = ConflictError("x" * 1_000_000, {"ids": ["1"] * 5000, "key": "conflict"})
    assert len(str(error)) <= MAX_TEXT
    (reason,) = bound_reasons(error.reasons)
    assert (len(reason["ids"]), reason["ids_count"]) == (MAX_PROBLEMS, 5000)


def test_what_a_failed_job_says_is_kept_up_to_a_limit_and_its_reason_always() -> None:
    small = {"error": "no such port", "port": 7}
    assert _bound_failure(dict(small), 40) == small
    long = _bound_failure({"error": "x" * 1_000_000, "port": 7}, 1_000_030)
    assert (long["port"], len(long["error"]) <= MAX_TEXT) == (7, True)
    large = _bound_failure({"error": "no", "dump": "x" * 1_000_000}, 1_000_030)
    assert large == {
        "error": "no",
        "left_out": f"the rest of the answer, which has 1000030 bytes: {MAX_DETAILS} are the limit",
    }
    structured = _bound_failure({"error": {"code": 17}, "dump": "x" * 1_000_000}, 1_000_030)
    assert (structured["error"], list(structured)) == ({"code": 17}, ["error", "left_out"])
    assert list(_bound_failure({"error": ["x" * 1_000_000]}, 1_000_030)) == ["left_out"]


async def test_a_report_that_cannot_be_stored_is_refused_by_its_name_and_with_the_reason() -> None:
    """It is data that came, and not what a function has returned."""
    for body, reason in ((b'{"at": 1e999}', "a number is infinite or NaN"), (b'{"by": "\\u0000"}', "a null character")):
        with pytest.raises(InvalidInputError, match=f"^the progress report cannot be stored as JSON: .*{reason}"):
            await report_progress(cast("AsyncSession", None), "token", body)


async def test_a_progress_report_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=f"has 100000 bytes: {MAX_DETAILS} are the limit"):
        await report_progress(cast("AsyncSession", None), "token", b"x" * 100_000)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5000),
        lambda inner: st.lists(inner, max_size=100) | st.dictionaries(st.text(max_size=300), inner, max_size=100),
        max_leaves=200,
    )
)
def test_a_value_in_a_log_line_has_a_limit(value: object) -> None:
    shown = cut_values(None, "", {"event": "happened", "value": value})["value"]
    assert isinstance(value, int) or len(repr(shown)) <= 2 * MAX_VALUE + 100


def test_small_values_in_a_log_line_stay_what_they_are_and_a_traceback_keeps_both_ends() -> None:
    line = {"event": "e", "queues": ["a", "b"], "count": 3, "exception": "begin" + "x" * 100_000 + "end"}
    cut = dict(cut_values(None, "", dict(line)))
    exception = cut.pop("exception")
    assert cut == {"event": "e", "queues": ["a", "b"], "count": 3}
    assert isinstance(exception, str)
    assert (exception[:5], exception[-3:], len(exception) <= MAX_TEXT) == ("begin", "end", True)


def test_fewer_messages_are_in_hand_when_they_may_be_larger() -> None:
    assert [bound_prefetch(200, size) for size in (1000, 1024**2, 20 * 1024**2, 1024**3)] == [200, 64, 3, 1]


async def test_large_messages_wait_in_their_order_and_small_ones_for_nobody() -> None:
    in_hand, order = BytesInHand(), []
    gates = {name: asyncio.Event() for name in "abcd"}

    async def handle(name: str, size: int) -> None:
        async with in_hand.hold(size):
            order.append(name)
            await gates[name].wait()

    tasks = [
        asyncio.create_task(handle(name, size))
        for name, size in (("a", AT_ONCE - 1000), ("b", 3 * AT_ONCE), ("c", SMALL + 1), ("d", SMALL))
    ]
    await asyncio.sleep(0)
    assert order == ["a", "d"]
    gates["a"].set()
    await tasks[0]
    await asyncio.sleep(0)
    assert order == ["a", "d", "b"]
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    await asyncio.sleep(0)
    assert order == ["a", "d", "b", "c"]
    for gate in gates.values():
        gate.set()
    await asyncio.gather(tasks[2], tasks[3])


async def test_a_message_that_is_cancelled_while_it_waits_leaves_its_place_to_the_next() -> None:
    in_hand = BytesInHand()
    async with in_hand.hold(AT_ONCE):
        waiting = [asyncio.create_task(_hold(in_hand)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
    await asyncio.wait_for(waiting[1], 60)


async def _hold(in_hand: BytesInHand) -> None:
    async with in_hand.hold(AT_ONCE):
        pass
