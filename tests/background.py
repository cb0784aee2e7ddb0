"""An event loop in a thread, for code that is not asynchronous itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds until a call is taken to hang. A busy machine is slow; what is right comes much sooner."""


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
        """End the loop and the thread, with all tasks, and with those that begin because others end.

        A connection that is open begins some. Left alone they would be collected during another test, which then fails.
        """

        async def cancel_all() -> None:
            while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
