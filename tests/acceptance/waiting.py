"""Waiting for something that happens in another program: always with a deadline, never a fixed sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds. Two cores are shared with other people's tests; what is right comes much sooner."""


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE, every: float = 0.03) -> T:
    """Ask again and again until the answer is true, and return it.

    Raises:
        AssertionError: it did not happen in time; the text says what, and what was last seen.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what} (last seen: {answer!r})")
        time.sleep(every)


def throughout(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Watch for a while that something stays true. For what must *not* happen there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"did not stay true for {seconds:g} s: {what}"
        time.sleep(0.05)


class Background:
    """An event loop in a thread, so that tests read from top to bottom and fixtures live as long as they like."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="background", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float = PATIENCE) -> T:
        """Run a coroutine there and return its result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and the thread."""

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
