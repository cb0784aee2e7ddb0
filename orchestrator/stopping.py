"""Stop a program, and wait in one that may have to stop at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Stopping(asyncio.Event):
    """Set when a program has begun to stop.

    Attributes:
        exit_code: with which it ends.
    """

    exit_code = 0


async def wait_or_stop(seconds: float, stopping: asyncio.Event) -> bool:
    """Wait until the time is over or the program is stopping; return whether it is stopping."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return False
    return True


def raise_if_cancelled() -> None:
    """Raise ``CancelledError`` if this task was cancelled and something on the way has swallowed it.

    ``asyncio.wait_for`` of Python 3.11, which client libraries use, does so when what it waits for is done at that moment, as it
    is when an event loop that was blocked reads an answer and a cancellation together.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def unless_stopping(work: Coroutine[Any, Any, T], stopping: asyncio.Event) -> T | None:
    """Do what the program needs to go on only; when it is stopping, cancel that and return ``None``."""
    working, stops = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, stops}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stops.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    return None if working.cancelled() else working.result()


async def end_tasks(tasks: Iterable[asyncio.Task[None]], seconds: float) -> bool:
    """Wait until tasks have ended, cancel those that have not after this time, and wait as long once more.

    Returns:
        Whether all have ended: a client library may wait for a server that is silent although it was cancelled.
    """
    tasks = set(tasks)
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for one in late:
        one.cancel()
    ended, _ = await asyncio.wait(tasks, timeout=seconds if late else 0)
    return ended == tasks
