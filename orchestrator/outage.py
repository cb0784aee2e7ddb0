"""Say in the log that a server cannot be reached: once, again at growing intervals, and when it is back."""

from __future__ import annotations

import time
from typing import Final

import structlog

from orchestrator.text import format_message
from orchestrator.watchdog import with_blockage

logger = structlog.get_logger(__name__)

FIRST_REMINDER: Final = 10.0
LAST_REMINDER: Final = 600.0
"""Seconds between two lines about an outage: they double from the first to the last."""

STABLE_AFTER: Final = 30.0
"""Seconds without an outage after which the next one is news: a connection that is lost again at once is no better than none."""


class Outage:
    """What one part of a program says about a server, however often it tries.

    Args:
        lost: the line about a try that failed.
        back: the line that ends it; ``None`` when nothing notices that.
        fields: of each line.
    """

    def __init__(self, lost: str, back: str | None, **fields: str) -> None:
        self._lost, self._back, self._fields = lost, back, fields
        self._began_at: float | None = None
        self._last_at = self._next_at = float("-inf")
        self._interval = FIRST_REMINDER
        self._is_said = False
        self._tries = 0

    def report(self, error: BaseException | None = None, **fields: str) -> None:
        """Record a try that failed, and log it if it is news, or time for a reminder."""
        now = time.monotonic()
        if now - self._last_at > STABLE_AFTER:
            self._began_at, self._is_said, self._interval, self._next_at = None, False, FIRST_REMINDER, now
        if self._began_at is None:
            self._began_at, self._tries = now, 0
        self._last_at = now
        self._tries += 1
        if now < self._next_at:
            return
        self._next_at = now + self._interval
        self._interval = min(2 * self._interval, LAST_REMINDER)
        more: dict[str, object] = {} if error is None else {"error": format_message(error)}
        if self._is_said:
            more |= {"seconds": round(now - self._began_at), "tries": self._tries}
        self._is_said = True
        logger.warning(with_blockage(self._lost), **self._fields, **fields, **more)

    def over(self) -> None:
        """Record that the server has been reached, and log it if it was said that it could not be."""
        began_at, self._began_at = self._began_at, None
        if began_at is None:
            return
        self._last_at = time.monotonic()
        if self._is_said and self._back is not None:
            self._is_said = False
            logger.warning(self._back, **self._fields, seconds=round(self._last_at - began_at, 1))
