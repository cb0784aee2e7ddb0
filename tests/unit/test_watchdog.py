"""The watch of an event loop: what blocks it is named from a thread while it lasts."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from structlog.testing import capture_logs

from orchestrator import user_code, watchdog
from orchestrator.activity import Blockage, doing, expect_end, find_activity
from orchestrator.diagnostics import read_stack
from orchestrator.watchdog import LoopWatch, watch_loop, with_blockage

Logs = list[dict[str, object]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(watchdog, "SAMPLE", 0.02)
    monkeypatch.setattr(watchdog, "BLOCKED_AFTER", 0.2)
    monkeypatch.setattr(watchdog, "OVERDUE_GRACE", 0.1)
    yield
    # On a busy machine a thread may have been about to say something, and would say it in the next test.
    for one in threading.enumerate():
        if one.name == "loop-watch":
            one.join(60)


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as found:
        yield found  # type: ignore[misc]  # structlog's entries are such dicts


def block_until(condition: Callable[[], object]) -> None:
    """Block the event loop until another thread has done something."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    """Wait on the event loop."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.01)


def events(logs: Logs) -> list[object]:
    return [one["event"] for one in logs]


async def test_a_blocked_loop_is_reported_with_what_blocks_it_and_again_later(logs: Logs) -> None:
    with watch_loop() as watch, doing("the step 'A' of 'w'", process_id="p", attempt=2) as activity:
        block_until(lambda: events(logs).count("event loop blocked") == 3)
        assert watch.blockage is not None
        assert watch.unresponsive_for > 0.2
        await until(lambda: "event loop responds again" in events(logs))
        assert watch.blockage is None
    first = logs[0]
    assert (first["by"], first["process_id"], first["attempt"]) == ("the step 'A' of 'w'", "p", 2)
    assert "test_watchdog.py" in str(first["at"])
    assert "block_until" in str(first["at"])
    pauses = [one["seconds"] for one in logs if one["event"] == "event loop blocked"]
    assert pauses == sorted(pauses, key=float)
    assert activity.blocked is not None
    assert activity.blocked.seconds >= 0.2


async def test_a_task_that_an_activity_creates_belongs_to_it(logs: Logs) -> None:
    async def child() -> None:
        # On a busy machine the first report may come before the task has blocked for long enough to be remembered.
        block_until(lambda: logs and activity.blocked is not None)

    with watch_loop(), doing("the step 'A' of 'w'") as activity:
        await asyncio.gather(asyncio.create_task(child()))
    assert logs[0]["by"] == "the step 'A' of 'w'"
    assert activity.blocked is not None


async def test_many_short_tasks_are_an_overload_and_nobody_is_blamed(logs: Logs) -> None:
    activities = []

    async def short() -> None:
        with doing("a short one") as activity:
            activities.append(activity)
            time.sleep(0.03)  # noqa: ASYNC251 - what this test is about

    with watch_loop():
        deadline = time.monotonic() + 30
        while not logs and time.monotonic() < deadline:
            await asyncio.gather(*(short() for _ in range(30)))
    assert logs[0]["event"] == "event loop overloaded"
    assert "use a plain function" not in str(logs[0]["advice"])
    assert [one.blocked for one in activities if one.blocked] == []


async def test_a_step_that_blocks_beyond_its_deadline_ends_the_program(logs: Logs) -> None:
    ended: list[bool] = []
    with watch_loop() as watch, doing("the step 'A' of 'w'") as activity:
        activity.ends_program = True
        watch.end_program_with(lambda: ended.append(True))
        expect_end(0.1)
        block_until(lambda: ended)
    assert "event loop blocked beyond the deadline of a call: the program ends" in events(logs)


async def test_a_form_that_blocks_beyond_its_deadline_does_not_end_the_program(logs: Logs) -> None:
    """Its message would be delivered again, and end the next one."""
    ended: list[bool] = []
    with watch_loop() as watch, doing("the form of 'w'"):
        watch.end_program_with(lambda: ended.append(True))
        expect_end(0.1)
        block_until(lambda: events(logs).count("event loop blocked") == 4)
    assert not ended


async def test_a_signal_to_a_blocked_program_is_answered_once(logs: Logs) -> None:
    with watch_loop():
        watchdog.request_stop(asyncio.get_running_loop())
        block_until(lambda: events(logs).count("event loop blocked") == 2)
    assert len([one for one in events(logs) if "a second signal ends the program" in str(one)]) == 1


async def test_a_lost_connection_may_be_the_fault_of_a_blocked_loop(logs: Logs) -> None:
    with watch_loop():
        assert with_blockage("a server is away") == "a server is away"
        with doing("the form of 'w'"):
            block_until(lambda: logs)
        await until(lambda: "event loop responds again" in events(logs))
        said = with_blockage("a server is away")
    assert "or this program could not listen, because its event loop was blocked for" in said
    assert "by the form of 'w' at " in said


async def test_programs_on_one_loop_share_its_watch() -> None:
    with watch_loop() as first:
        with watch_loop() as second:
            assert first is second
        assert with_blockage("x") == "x"
    with watch_loop() as third:
        assert third is not first


async def sleep_twice() -> str:
    await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    return "in time"


async def test_time_in_which_another_blocks_the_loop_does_not_count_towards_a_timeout() -> None:
    began = time.monotonic()
    with watch_loop():
        with doing("the step 'B' of 'w'"):
            neighbour = asyncio.create_task(user_code.run(sleep_twice, is_async=True, seconds=3, what="the step 'B'"))
        await asyncio.sleep(0)
        with doing("the step 'A' of 'w'"):
            block_until(lambda: time.monotonic() > began + 3.5)
        assert await neighbour == "in time"


async def test_time_for_which_a_function_blocks_the_loop_itself_counts_towards_its_timeout() -> None:
    async def block() -> None:
        began = time.monotonic()
        block_until(lambda: time.monotonic() > began + 1.2)
        await asyncio.sleep(10)

    with watch_loop(), doing("the step 'A' of 'w'"):
        assert await user_code.run(block, is_async=True, seconds=0.6, what="the step 'A'") is user_code.OVERDUE


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (9.0, "the program stood still: code that does not release Python's global lock"),
        (0.1, "the program stood still: the machine was stopped or overloaded"),
    ],
)
async def test_what_stops_the_watch_as_well_is_reported_afterwards(logs: Logs, used: float, said: str) -> None:
    watch = LoopWatch(asyncio.get_running_loop())
    with doing("the step 'A' of 'w'") as activity:
        watch._stood_still(10.0, used, time.monotonic())
    assert events(logs) == [said]
    assert (activity.blocked is not None) == (used > 5), "a frozen machine is no step's fault"


async def test_an_inner_activity_ends_with_its_body() -> None:
    task = asyncio.current_task()
    with doing("outer") as outer:
        with doing("inner") as inner:
            assert find_activity(task) is inner
        assert find_activity(task) is outer
    assert find_activity(task) is None


def make_frame(depth: int) -> FrameType:
    import sys

    return sys._getframe() if depth == 0 else make_frame(depth - 1)


def test_a_deep_stack_is_cut_in_the_middle_and_has_no_values() -> None:
    stack = read_stack(make_frame(50))
    assert len(stack.frames) == 13
    assert "…" in stack.frames
    assert stack.at is not None
    assert stack.at.endswith(" in make_frame")


def test_a_blockage_is_written_as_json() -> None:
    found = Blockage(12.34, "the step 'A' of 'w'", "a.py:3 in f", ("a.py:3 in f",), {"process_id": "p", "attempt": 1})
    assert found.document() == {
        "process_id": "p",
        "attempt": 1,
        "by": "the step 'A' of 'w'",
        "at": "a.py:3 in f",
        "seconds": 12.3,
        "stack": ["a.py:3 in f"],
    }
    assert str(found) == "blocked for 12 s by the step 'A' of 'w' at a.py:3 in f"
    assert str(Blockage(1.25)) == "blocked for 1.2 s"


async def test_what_calls_have_returned_is_not_kept_however_many_there_were() -> None:
    class Result:
        """What an author's function has returned: perhaps megabytes."""

    kept: list[weakref.ref[object]] = []

    async def inner() -> Result:
        return Result()

    async def outer() -> object:
        kept.append(weakref.ref(await user_code.run(inner, is_async=True, seconds=60, what="inner")))
        return Result()

    with watch_loop():
        for _ in range(3):
            with doing("the step 'A' of 'w'") as activity:
                both = [user_code.run(outer, is_async=True, seconds=60, what="outer") for _ in range(2)]
                kept.extend(map(weakref.ref, await asyncio.gather(*both)))
            assert activity.call is None
            del activity, both
    await asyncio.sleep(0)  # the loop holds what has woken this task
    gc.collect()
    assert [one() for one in kept] == [None] * 12
