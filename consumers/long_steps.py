"""Log which steps have been running for long, and at which line: a step that hangs would otherwise leave no trace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

import structlog

from consumers.attempt import ClaimedAttempt
from orchestrator.activity import Activity
from orchestrator.diagnostics import find_waiting, read_thread
from orchestrator.log import log_fields
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

LOOK = 1.0
"""Seconds between two checks."""

FIRST, RARELY = 10.0, 600.0
"""Seconds after which a step is first reported, and the most between two reports, which come after 10, 20, 40 … seconds."""


class LongSteps:
    """Reports long-running steps. Run :meth:`run` beside them.

    Args:
        attempts: returns the running attempts.
        timeout: seconds for a step that sets no timeout itself.
    """

    def __init__(self, attempts: Callable[[], Iterable[ClaimedAttempt]], timeout: float) -> None:
        self._attempts = attempts
        self._timeout = timeout
        self._next_reports: WeakKeyDictionary[ClaimedAttempt, float] = WeakKeyDictionary()

    async def run(self, stopping: asyncio.Event) -> None:
        """Report until ``stopping`` is set."""
        while not await wait_or_stop(LOOK, stopping):
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Report the steps that are due for a report."""
        for attempt in self._attempts():
            seconds = now - attempt.began_at
            if seconds < self._next_reports.get(attempt, FIRST):
                continue
            self._next_reports[attempt] = seconds + min(max(seconds, FIRST), RARELY)
            own = attempt.leaf.step.timeout
            logger.info(
                "step still runs",
                seconds=round(seconds),
                timeout=self._timeout if own is None else own.total_seconds(),
                at=_find_place(attempt.activity),
                **log_fields(attempt.process),
            )


def _find_place(activity: Activity | None) -> str | None:
    """Return the line of user code at which a step waits; ``None`` if it is in a child process, or in a library."""
    if activity is None:
        return None
    if activity.thread_id is not None:
        return read_thread(activity.thread_id).at
    if activity.in_line:
        return "waits for a thread: all are in use"
    return None if activity.call is None else find_waiting(activity.call.get_coro())
