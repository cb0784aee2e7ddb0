"""B32: running one attempt of a step: what it gets, where it runs, and what becomes of what it returns."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from orchestrator import user_code
from orchestrator.activity import current_activity, doing
from orchestrator.engine.events import StepFailed, StepSucceeded
from orchestrator.services.steps import execute
from orchestrator.threads import Threads
from orchestrator.workflow import step
from tests.unit.attempts import LIMITS, Bare, attempt, failure
from tests.unit.walk import PROCESS_ID, nothing


class Port(BaseModel):
    name: str
    id: UUID = PROCESS_ID


class Colour(Enum):
    RED = "red"


async def test_an_async_step_runs_and_its_result_is_the_delta() -> None:
    async def author(node: str, process_id: UUID) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"greeting": f"{node} of {process_id}"}

    outcome = await attempt(author, {"node": "ams-1"}, process_id=PROCESS_ID)

    assert outcome == StepSucceeded(3, {"greeting": f"ams-1 of {PROCESS_ID}"})


async def test_a_plain_step_runs_in_a_thread_and_the_event_loop_stays_responsive() -> None:
    answered = threading.Event()
    loop = asyncio.get_running_loop()

    def author() -> dict[str, int]:
        loop.call_soon_threadsafe(answered.set)
        assert answered.wait(60), "the event loop is blocked"
        return {"thread": threading.get_ident()}

    outcome = await attempt(author)

    assert isinstance(outcome, StepSucceeded), outcome
    assert outcome.delta["thread"] != threading.get_ident()


async def test_an_async_step_runs_on_the_event_loop() -> None:
    async def author() -> dict[str, int]:
        return {"thread": threading.get_ident()}

    assert await attempt(author) == StepSucceeded(3, {"thread": threading.get_ident()})


async def test_a_plain_step_sees_the_context_of_its_attempt() -> None:
    """The names in its log lines."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("bound")

    assert await attempt(lambda: {"seen": variable.get()}) == StepSucceeded(3, {"seen": "bound"})


@pytest.mark.parametrize(
    ("returned", "delta"),
    [
        (None, {}),
        ({}, {}),
        ({"a": PROCESS_ID}, {"a": str(PROCESS_ID)}),
        ({"a": Port(name="p")}, {"a": {"name": "p", "id": str(PROCESS_ID)}}),
        ({"a": [Port(name="p")]}, {"a": [{"name": "p", "id": str(PROCESS_ID)}]}),
        ({"a": Colour.RED, "b": (1, 2)}, {"a": "red", "b": [1, 2]}),
        ({"a": {1: "number as key"}}, {"a": {"1": "number as key"}}),
        ({"a": {5}}, {"a": [5]}),
    ],
)
async def test_what_a_step_returns_enters_the_state_as_json(returned: Any, delta: dict[str, Any]) -> None:
    assert await attempt(lambda: returned) == StepSucceeded(3, delta)


async def test_the_delta_shares_nothing_with_what_the_step_keeps() -> None:
    kept: dict[str, list[int]] = {"a": []}

    outcome = await attempt(lambda: kept)
    kept["a"].append(1)

    assert outcome == StepSucceeded(3, {"a": []})


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (["a"], "the step 's' returned list: return a dict of new state keys, or nothing"),
        ("text", "the step 's' returned str: return a dict of new state keys, or nothing"),
        ({"a"}, "the step 's' returned set: return a dict of new state keys, or nothing"),
        (Port(name="p"), "the step 's' returned Port: return a dict of new state keys, or nothing"),
        ({1: "a"}, "the step 's' returned the key 1: state keys are strings"),
        (
            {"a": float("nan")},
            "the step 's' returned something that cannot be stored as JSON: a number is infinite or NaN",
        ),
        (
            {"a": [float("-inf")]},
            "the step 's' returned something that cannot be stored as JSON: a number is infinite or NaN",
        ),
        ({"a": object()}, "the step 's' returned something that cannot be stored as JSON"),
        ({"a": "\ud800"}, "the step 's' returned something that cannot be stored as JSON"),
        (
            {"a": "b\0c"},
            "the step 's' returned something that cannot be stored as JSON: a string has a null character",
        ),
        (
            {"a": [{"b\0": 1}]},
            "the step 's' returned something that cannot be stored as JSON: a string has a null character",
        ),
        ({"a": "x" * 2000}, "the state would have 2008 bytes, more than the limit of 2000"),
    ],
)
async def test_what_the_state_cannot_hold_fails_the_step(returned: Any, text: str) -> None:
    """B10."""
    outcome = await failure(lambda: returned)

    assert outcome.failure.type == "InvalidResultError"
    assert outcome.failure.message.startswith(text)


async def test_a_cycle_fails_the_step() -> None:
    cycle: dict[str, Any] = {}
    cycle["a"] = cycle

    assert "cannot be stored as JSON" in (await failure(lambda: cycle)).failure.message


async def test_the_two_characters_backslash_u0000_are_no_null_character() -> None:
    assert await attempt(lambda: {"a": "\\u0000"}) == StepSucceeded(3, {"a": "\\u0000"})


async def test_a_state_above_the_soft_limit_is_stored_with_a_warning() -> None:
    """B10: what counts is the whole state after the step."""
    outcome = await attempt(lambda: {"b": "x" * 500}, {"a": "x" * 600})

    assert isinstance(outcome, StepSucceeded)
    assert outcome.note is not None
    assert "more than the soft limit of 1000 (ORCHESTRATOR_STATE_SOFT_LIMIT)" in outcome.note


async def test_replacing_a_large_value_by_a_small_one_is_no_reason_to_warn() -> None:
    assert await attempt(lambda: {"a": "small"}, {"a": "x" * 1500}) == StepSucceeded(3, {"a": "small"})


@functools.singledispatch
def provision(subject: Port | int) -> dict[str, str]:
    raise NotImplementedError(subject)


@provision.register
def _(subject: Port) -> dict[str, str]:
    return {"provisioned": f"the port {subject.name}"}


@provision.register  # type: ignore[arg-type]  # typeshed wants one kind
async def _(subject: int) -> dict[str, str]:
    return {"provisioned": f"number {subject}"}


async def test_a_singledispatch_step_runs_what_fits_the_injected_model() -> None:
    """B37."""
    outcome = await attempt(provision, {"subject": {"name": "p"}})

    assert outcome == StepSucceeded(3, {"provisioned": "the port p"})


@functools.singledispatch
async def configure(subject: Port | int) -> dict[str, str]:
    raise NotImplementedError(subject)


@configure.register
async def _(subject: Port) -> dict[str, str]:
    return {"configured": subject.name}


@configure.register  # type: ignore[arg-type]  # typeshed wants one kind
def _(subject: int) -> dict[str, str]:
    return {"configured": str(subject)}


@pytest.mark.parametrize(("subject", "expected"), [({"name": "p"}, "p"), (5, "5")])
async def test_an_async_singledispatch_step_may_dispatch_to_plain_functions_too(subject: Any, expected: str) -> None:
    """B37."""
    assert await attempt(configure, {"subject": subject}) == StepSucceeded(3, {"configured": expected})


async def test_a_plain_singledispatch_step_may_dispatch_to_async_functions_too() -> None:
    """B37."""
    assert await attempt(provision, {"subject": 7}) == StepSucceeded(3, {"provisioned": "number 7"})


def plain(node: str) -> dict[str, str]:
    return {"node": node}


def announced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(**arguments: Any) -> Any:
        return {**function(**arguments), "announced": True}

    return wrapper


async def test_an_async_wrapper_around_a_plain_function_is_awaited() -> None:
    assert await attempt(announced(plain), {"node": "n"}) == StepSucceeded(3, {"node": "n", "announced": True})


@pytest.mark.parametrize("own", [True, False])
async def test_a_step_that_runs_too_long_is_cancelled_and_fails(*, own: bool) -> None:
    cancelled = asyncio.Event()

    async def author() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    limits = LIMITS if own else replace(LIMITS, step_timeout=0.01)
    outcome = await failure(step("s", timeout=0.01 if own else None)(author), limits=limits)

    assert cancelled.is_set()
    assert outcome.failure.type == "StepTimeoutError"
    assert outcome.failure.message == "the step 's' was cancelled: it ran longer than its timeout of 0.01 s"


async def test_a_step_that_cleans_up_after_its_cancellation_may_raise_there() -> None:
    async def author() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the device is gone as well")

    assert (await failure(step("s", timeout=0.01)(author))).failure.type == "StepTimeoutError"


async def test_a_step_that_ignores_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "CANCEL_GRACE", 0.01)
    release, ended = asyncio.Event(), asyncio.Event()

    async def author() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    outcome = await failure(step("s", timeout=0.01)(author))

    assert outcome.failure.type == "StepTimeoutError"
    assert not ended.is_set()
    release.set()
    await asyncio.wait_for(ended.wait(), 60)


async def test_a_plain_step_that_runs_too_long_is_left_behind_in_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_code, "CANCEL_GRACE", 0.01)
    release = threading.Event()
    author = step("s", timeout=0.01)(lambda: {"released": release.wait(60)})

    with Threads("test", 1) as threads:
        outcome = await execute(Bare(author), LIMITS, threads)
        release.set()

    assert isinstance(outcome, StepFailed)
    assert outcome.failure.type == "StepTimeoutError"


async def test_time_in_which_a_step_waits_for_a_connection_does_not_count_towards_its_timeout() -> None:
    """While its models are loaded or saved, as an example."""
    loop = asyncio.get_running_loop()

    class Waiting(Bare):
        has_written = True

        async def flush(self) -> None:
            activity = current_activity()
            assert activity is not None
            activity.begin_wait()
            if activity.pauses:
                activity.waited += 60  # the rest of the attempt may take as long as it likes
            until = loop.time() + 1.2
            while loop.time() < until:  # noqa: ASYNC110 - it is time that must pass
                await asyncio.sleep(0.01)
            activity.end_wait()

    for pauses, outcome in ((True, StepSucceeded), (False, StepFailed)):
        with doing("a step") as activity, Threads("test", 1) as threads:
            activity.pauses = pauses
            assert isinstance(await execute(Waiting(step("s", timeout=1)(nothing)), LIMITS, threads), outcome)


async def test_a_cancellation_from_outside_goes_through_after_the_step_was_cancelled() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def author() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = asyncio.create_task(attempt(author))
    await started.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


@pytest.mark.parametrize("waits", [True, False])
async def test_a_cancellation_from_outside_may_come_while_the_step_begins(*, waits: bool) -> None:
    ended: list[str] = []

    async def author() -> None:
        running.cancel()
        try:
            if waits:
                await asyncio.Event().wait()
            ended.append("by itself")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    running = asyncio.create_task(attempt(author))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["cancelled" if waits else "by itself"]


async def test_a_step_that_never_waits_ends_in_the_turn_of_the_event_loop_in_which_it_begins() -> None:
    turns: list[str] = []

    async def author() -> None:
        asyncio.get_running_loop().call_soon(turns.append, "another turn")

    assert isinstance(await attempt(author), StepSucceeded)
    assert turns == []


async def test_an_outage_of_our_own_servers_goes_through() -> None:
    """It is not the step's fault, so it is not the step's failure."""

    class Connected(Bare):
        def is_outage(self, error: Exception) -> bool:
            return isinstance(error, ConnectionError)

    def author() -> None:
        raise ConnectionError("the database is away")

    with Threads("test", 1) as threads:
        with pytest.raises(ConnectionError):
            await execute(Connected(author), LIMITS, threads)
        outcome = await execute(Bare(author), LIMITS, threads)
    assert isinstance(outcome, StepFailed)
