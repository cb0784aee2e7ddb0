"""The way from a plain function's thread to the event loop, without a database."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from orchestrator.bridge import Bridge, BridgeClosedError, current_bridge, current_user, drive, wait_for
from orchestrator.db.thread_session import require_async

T = TypeVar("T")


async def in_thread(function: Callable[[], T], bridge: Bridge | None = None) -> T:
    bridge = bridge or Bridge()
    return await asyncio.to_thread(drive, function, bridge)


async def twice(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_a_plain_function_waits_for_what_the_loop_does() -> None:
    assert await in_thread(lambda: wait_for(twice(4)) + await_only(twice(1))) == 10


async def test_errors_go_both_ways() -> None:
    async def fail() -> None:
        raise KeyError("of the loop")

    def author() -> None:
        for wait in (wait_for, await_only):
            with pytest.raises(KeyError, match="of the loop"):
                wait(fail())
        raise LookupError("of the thread")

    with pytest.raises(LookupError, match="of the thread"):
        await in_thread(author)


async def test_a_future_can_be_awaited_as_well_as_a_coroutine() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result("done")
    assert await in_thread(lambda: wait_for(future)) == "done"


async def test_context_variables_of_the_function_reach_the_loop() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    def author() -> str:
        variable.set("set in the thread")
        return wait_for(read())

    assert await in_thread(author) == "set in the thread"
    assert variable.get() == "unset"


async def test_who_is_running_is_the_bridge_the_task_or_the_thread() -> None:
    bridge = Bridge()
    assert await in_thread(lambda: (current_bridge(), current_user()), bridge) == (bridge, bridge)
    assert (current_bridge(), current_user()) == (None, asyncio.current_task())
    assert isinstance(await asyncio.to_thread(current_user), threading.Thread)


async def test_only_a_plain_function_can_wait_for_the_loop() -> None:
    with pytest.raises(RuntimeError, match="only a plain function"):
        wait_for(twice(1))


async def test_after_the_end_nothing_begins_but_what_gives_something_back() -> None:
    bridge = Bridge()
    await bridge.close()
    began = False

    async def begin() -> None:
        nonlocal began
        began = True

    def author() -> int:
        with suppress(Exception):  # does not take it
            wait_for(begin())
        return bridge.wait(twice(1), always=True)

    with pytest.raises(BridgeClosedError):
        await in_thread(author, bridge)
    assert not began
    assert await in_thread(lambda: bridge.wait(twice(1), always=True), bridge) == 2


async def test_the_end_cancels_what_is_being_awaited_and_waits_for_it() -> None:
    """The thread goes on only when it has ended, and no ``except Exception`` takes the cancellation."""
    bridge, began, events = Bridge(), asyncio.Event(), list[str]()

    async def last() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("off the wire")

    def author() -> None:
        with suppress(Exception):
            wait_for(last())
        events.append("swallowed")

    running = asyncio.create_task(in_thread(author, bridge))
    await began.wait()
    await bridge.close()
    assert events == ["off the wire"]
    with pytest.raises(asyncio.CancelledError):
        await running
    assert events == ["off the wire"]


async def test_what_is_cancelled_before_it_begins_answers_its_thread_too() -> None:
    bridge = Bridge()
    handed_over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def author() -> None:
        loop.call_soon_threadsafe(handed_over.set)
        wait_for(twice(1))

    running = asyncio.create_task(in_thread(author, bridge))
    await handed_over.wait()
    await bridge.close()
    with pytest.raises((asyncio.CancelledError, BridgeClosedError)):
        await asyncio.wait_for(running, 60)


def test_a_session_that_the_engine_has_not_given_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="is not the session that the engine has given to this function"):
        require_async(Session())
