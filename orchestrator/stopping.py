"""Wait in a program that may have to stop at any moment."""

from __future__ import annotations

import asyncio


async def wait_or_stop(seconds: float, stopping: asyncio.Event) -> bool:
    """Wait until the time is over or the program is stopping; return whether it is stopping."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return False
    return True
