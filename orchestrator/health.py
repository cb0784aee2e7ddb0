"""Say whether a program is ready: its event loop responds, its servers can be used, and it is not stopping.

Asked on threads of the metrics server, so that a blocked event loop is an answer and not a silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import TimeoutError as NoAnswerError
from typing import Final

from orchestrator.db.session import Database

DATABASE_PATIENCE: Final = 2.0
"""Seconds for the database to answer."""

LOOP_PATIENCE: Final = DATABASE_PATIENCE + 1
"""Seconds for the event loop to say what it found."""


class Health:
    """Finds out what keeps one program from working. Made on the program's event loop, asked on other threads.

    Args:
        has_broker: whether the program is connected to RabbitMQ and reads its queues, if it has to.
    """

    def __init__(self, database: Database, stopping: asyncio.Event, has_broker: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._stopping = stopping
        self._has_broker = has_broker

    def __call__(self) -> str | None:
        """Return why the program is not ready, or ``None``."""
        if self._loop.is_closed():
            return "it has ended"
        asked = asyncio.run_coroutine_threadsafe(self._find_problem(), self._loop)
        try:
            return asked.result(LOOP_PATIENCE)
        except NoAnswerError:
            asked.cancel()
            return f"its event loop has not responded for {LOOP_PATIENCE:g} s"

    async def _find_problem(self) -> str | None:
        if self._stopping.is_set():
            return "it is stopping"
        if not await self._database.answers(DATABASE_PATIENCE):
            return "PostgreSQL cannot be reached"
        if not self._has_broker():
            return "RabbitMQ cannot be reached"
        return None
