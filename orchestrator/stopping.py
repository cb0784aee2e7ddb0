"""Waiting in a program that may be told to stop at any moment."""

from __future__ import annotations

import asyncio


async def wait_or_stop(seconds: float, stopping: asyncio.Event) -> bool:
    """Wait, unless the program is stopping; whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return False
    return True
