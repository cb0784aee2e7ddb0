"""What a program does with tasks that do not end when it stops."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from orchestrator.broker.connection import supervise
from orchestrator.diagnostics import read_waiting
from orchestrator.errors import ServerUnavailableError
from orchestrator.runtime import run_together
from orchestrator.stopping import end_tasks, raise_if_cancelled


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def test_tasks_that_end_by_themselves_are_not_cancelled() -> None:
    ending = asyncio.Event()

    async def end_soon() -> None:
        ending.set()

    task = asyncio.create_task(end_soon())
    assert await end_tasks([task], 60)
    assert ending.is_set()
    assert not task.cancelled()


async def test_tasks_that_go_on_are_cancelled() -> None:
    task = asyncio.create_task(wait_for_ever())
    assert await end_tasks([task], 0.01)
    assert task.cancelled()


async def test_a_task_that_ignores_its_cancellation_is_reported_and_not_waited_for() -> None:
    released = asyncio.Event()

    async def ignore() -> None:
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            await released.wait()

    task = asyncio.create_task(ignore())
    assert not await end_tasks([task], 0.01)
    released.set()
    await task


async def test_the_place_at_which_each_task_waits_is_found() -> None:
    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    found = read_waiting(asyncio.get_running_loop())
    assert any("test_stopping.py" in one and one.endswith("in wait_for_ever") for one in found)
    task.cancel()


async def swallow_one_cancellation(stopping: asyncio.Event) -> None:
    """As a client library does when its answer and a cancellation come together."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await stopping.wait()


async def test_programs_that_run_together_end_when_one_fails_and_another_swallows_its_cancellation() -> None:
    stopping = asyncio.Event()

    async def fail() -> None:
        await asyncio.sleep(0)  # the other one has begun
        raise ServerUnavailableError("no answer within 3 s")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(60):
            await run_together([swallow_one_cancellation(stopping), fail()], stopping)
    assert raised.group_contains(ServerUnavailableError, match="no answer")


async def test_a_task_that_has_swallowed_its_cancellation_does_not_go_on() -> None:
    async def swallow() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise_if_cancelled()

    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    raise_if_cancelled()  # nobody has cancelled this one


async def test_supervision_ends_although_a_cancellation_was_swallowed() -> None:
    async def once(_: object) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    task = asyncio.create_task(supervise("a test", once, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
