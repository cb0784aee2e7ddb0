"""A coroutine that runs in a context of its own, in a task that has another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys

import pytest

from consumers.contexts import in_context
from orchestrator.diagnostics import read_waiting

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


async def test_neither_sees_what_the_other_has_set() -> None:
    variable.set("of the task")
    context = contextvars.copy_context()

    async def read_and_set() -> str:
        before = variable.get()
        variable.set("of the coroutine")
        await asyncio.sleep(0)
        assert variable.get() == "of the coroutine"
        return before

    waiting = in_context(read_and_set(), context)
    variable.set("later")

    assert await waiting == "of the task"
    assert variable.get() == "later"
    assert context[variable] == "of the coroutine"


async def test_what_it_starts_gets_its_context() -> None:
    async def start() -> str:
        variable.set("of the coroutine")
        return await asyncio.create_task(read())

    async def read() -> str:
        return variable.get()

    assert await in_context(start(), contextvars.copy_context()) == "of the coroutine"


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_of_the_coroutine_is_raised(waits: bool) -> None:
    async def fail() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await in_context(fail(), contextvars.copy_context())


async def test_an_error_of_what_it_waits_for_can_be_caught_in_it() -> None:
    waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waited_for.set_exception(ConnectionError("lost"))

    async def catch() -> str:
        try:
            await waited_for
        except ConnectionError as error:
            await asyncio.sleep(0)
            return str(error)
        return "no error"

    assert await in_context(catch(), contextvars.copy_context()) == "lost"


async def test_a_cancellation_of_the_task_and_a_timeout_within_are_raised_in_it() -> None:
    begun = asyncio.Event()
    ended: list[str] = []

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(variable.get())
            raise

    async def run() -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "of the coroutine")
        await in_context(wait(), context)

    task = asyncio.create_task(run())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["of the coroutine"]


async def test_a_coroutine_that_is_given_up_is_closed_in_its_context() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(variable.get())

    async def run() -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "of the coroutine")
        await in_context(wait(), context)

    running = run()
    running.send(None)
    running.close()
    assert ended == ["of the coroutine"]


async def test_an_error_that_the_coroutine_has_handled_is_not_the_cause_of_a_later_one() -> None:
    waited_for: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waited_for.set_exception(ConnectionError("lost"))

    async def handle_and_fail() -> None:
        with contextlib.suppress(ConnectionError):
            await waited_for
        assert sys.exc_info()[1] is None
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as raised:
        await in_context(handle_and_fail(), contextvars.copy_context())
    assert raised.value.__context__ is None


async def test_the_place_is_found_at_which_it_waits() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        await in_context(wait_for_ever(), contextvars.copy_context())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    found = read_waiting(asyncio.get_running_loop())
    assert any("in_context" not in one and one.endswith("wait_for_ever") for one in found)
    task.cancel()
