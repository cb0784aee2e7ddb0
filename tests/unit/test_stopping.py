"""What a program does with tasks that do not end when it stops."""

from __future__ import annotations

import asyncio

from orchestrator.diagnostics import read_waiting
from orchestrator.stopping import end_tasks


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
