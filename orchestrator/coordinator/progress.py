"""Find out which commands have left a step queue, and so which of them were lost.

A queue is in order: when a consumer has received a command, those that were published before it have left the queue. Those of
them that are neither claimed nor held by a consumer were lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from orchestrator.db.consumers import Report

SLACK = timedelta(seconds=0.5)
"""The longest time that a command may take from the broker to a consumer."""

REMEMBERED = 100
"""Observations of a queue that wait for the reports of consumers; the oldest are forgotten."""


class Progress:
    """Computes for each step queue a time such that all commands published before it have left the queue.

    A consumer may have received a command after its last report. So an observation counts only once all consumers of the queue
    have reported at a later time.
    """

    def __init__(self) -> None:
        self._observed: dict[str, deque[tuple[datetime, datetime]]] = {}
        self._left_before: dict[str, datetime] = {}

    def observe(
        self, ready: Mapping[str, int], reports: Collection[Report], now: datetime, unpublished: timedelta
    ) -> None:
        """Record an observation of the broker and the consumers' reports.

        Args:
            ready: queue → messages that wait in it.
            reports: of the consumers, read after ``ready``.
            unpublished: how long publishing a command may take, after which it must have reached the queue.
        """
        for queue, waiting in ready.items():
            observed = self._observed.setdefault(queue, deque(maxlen=REMEMBERED))
            readers = [one for one in reports if queue in one.queues]
            times = [newest for one in readers if (newest := one.received.newest.get(queue)) is not None]
            if waiting == 0:
                times.append(now - unpublished)
            if times:
                # No command is newer than now, even if its header says so.
                observed.append((now, min(max(times), now)))
            reported = min((one.reported_at - SLACK for one in readers), default=now)
            while observed and observed[0][0] <= reported:
                before = observed.popleft()[1]
                self._left_before[queue] = max(before, self._left_before.get(queue, before))

    def left_before(self, queue: str) -> datetime | None:
        """Return the time such that all commands published before it have left the queue; ``None`` if unknown."""
        return self._left_before.get(queue)
