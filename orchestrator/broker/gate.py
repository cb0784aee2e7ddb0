"""Let messages wait while PostgreSQL is unreachable: one probe and one log line for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message
from orchestrator.watchdog import with_blockage

logger = structlog.get_logger(__name__)

FIRST_REMINDER, LAST_REMINDER = 10.0, 600.0
"""Seconds between two log lines about the outage: the interval doubles from the first value to the second."""

PATIENCE = 5.0
"""Seconds to wait for an answer of the database."""

JUST = 0.5
"""Seconds after an answer without another probe, because hundreds of messages may have failed at once."""


class Gate:
    """A gate that is open while the database answers, as far as is known.

    Args:
        answers: probes the database once.
    """

    def __init__(self, answers: Callable[[], Awaitable[bool]]) -> None:
        self._answers = answers
        self._open = asyncio.Event()
        self._open.set()
        self._waiting = 0
        self._asking = asyncio.Lock()
        self._answered_at = float("-inf")
        self._ending = asyncio.Event()
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether messages may be handled."""
        return self._open.is_set()

    async def shut(self, error: BaseException) -> bool:
        """Shut the gate after an error if the database does not answer; return whether it is shut."""
        async with self._asking:
            if self.is_open and not self._has_just_answered and not await self._ask():
                self._open.clear()
                self._probing = asyncio.create_task(self._probe(format_message(error)))
        return not self.is_open

    async def wait(self, *others: asyncio.Future[Any]) -> None:
        """Wait until the gate is open, or one of these futures is done."""
        if self.is_open:
            return
        self._waiting += 1
        opening: asyncio.Future[Any] = asyncio.create_task(self._open.wait())
        try:
            await asyncio.wait({opening, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
            self._waiting -= 1

    def give_up(self) -> None:
        """Stop probing, because the program stops."""
        self._ending.set()

    @property
    def _has_just_answered(self) -> bool:
        return asyncio.get_running_loop().time() < self._answered_at + JUST

    async def _ask(self) -> bool:
        if not await self._answers():
            return False
        self._answered_at = asyncio.get_running_loop().time()
        return True

    async def _probe(self, error: str) -> None:
        loop = asyncio.get_running_loop()
        began, tries, interval = loop.time(), 0, FIRST_REMINDER
        reminds_at = began + interval
        logger.warning(with_blockage("the database is away; messages wait"), error=error)
        while not await self._ask():
            tries += 1
            if await wait_or_stop(backoff(SERVER_AWAY, tries), self._ending):
                return
            if loop.time() >= reminds_at:
                logger.warning(
                    "the database is still away",
                    seconds=round(loop.time() - began),
                    messages=self._waiting,
                    error=error,
                )
                interval = min(2 * interval, LAST_REMINDER)
                reminds_at = loop.time() + interval
        logger.warning("the database answers again", seconds=round(loop.time() - began, 1), messages=self._waiting)
        self._open.set()
