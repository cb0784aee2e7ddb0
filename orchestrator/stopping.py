"""Stop a program, and wait in one that may have to stop at any moment."""

from __future__ import annotations

import asyncio


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
