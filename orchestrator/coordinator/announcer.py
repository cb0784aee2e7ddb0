"""Publish events one after the other and record what the broker has confirmed.

A program publishes an event only when it knows that the broker has confirmed the one before it. So the first delivery of every
event is in order, whichever program publishes it; two coordinators that publish the same events only repeat them. An event that
no queue would get is left out, which is equivalent to publishing it (:mod:`orchestrator.coordinator.unbound`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from uuid import UUID

import structlog

from orchestrator.broker import outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.coordinator.unbound import Unbound
from orchestrator.db.processes.outbox import Mark, mark_announced
from orchestrator.db.session import DriverPool, is_connection_error
from orchestrator.errors import PublishError
from orchestrator.line import Line
from orchestrator.messages import Advanced
from orchestrator.outage import Outage
from orchestrator.services.results import event_key
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds for which the marks of resting processes are collected, to be written in one statement."""

AGAIN = 0.5
"""Seconds until a process is checked again whose events the broker has just not confirmed."""

MOST_REMEMBERED = 10_000
"""The most running processes whose confirmed events this coordinator remembers; forgotten ones may be published twice."""

CALM = 10.0
"""Seconds without a refusal after which it is logged that the broker confirms events again."""


class Announcer:
    """Publishes the events of processes. Run :meth:`run` beside its users.

    While the broker refuses an event of a workflow, that workflow's events stay in the rows. Only probes are published, by
    :class:`~orchestrator.coordinator.backlog.Backlog`, until the broker confirms one.

    Args:
        is_busy: returns whether the program is so busy that a few milliseconds for one process do not matter.
    """

    def __init__(self, publisher: Publisher, pool: DriverPool, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._unbound = Unbound(publisher, is_busy)
        self._pool = pool
        self._refused: set[str] = set()
        self._trouble_at: float | None = None
        """When the broker last refused an event, or it was last learnt that it does not any more."""
        self._outage = Outage("marks not written yet; events may be published twice", "marks are written again")
        self._marks: dict[UUID, Mark] = {}
        self._has_marks = asyncio.Event()
        self._under_way: dict[UUID, int] = {}
        """Up to which log entry events are confirmed of processes whose consumer goes on with them: until it reads the mark,
        it sends these entries again."""
        self._writing = asyncio.Lock()
        self._turns: dict[UUID, Line] = {}
        """Messages about one process are announced one after the other: that of a later step may come before the confirms. Here
        stand the processes one of whose messages is announced, and those that wait for it."""

    @property
    def refused(self) -> frozenset[str]:
        """The workflows whose events the broker refuses, or does not confirm."""
        return frozenset(self._refused)

    def may_wait(self, workflow: str) -> bool:
        """Return whether events of a workflow's steps may come later, as no queue was bound for successes a moment ago."""
        return self._unbound.was_returned(f"step.{workflow}.success")

    async def announce(self, message: Advanced, *, probe: bool = False) -> int:
        """Publish the events in a message in order, until the broker does not confirm one.

        Args:
            probe: publish also while this workflow's events are refused, to see whether they still are.

        Returns:
            The newest log entry up to which the events are confirmed or left out.
        """
        process_id = message.process_id
        waiting = self._turns.get(process_id)
        if waiting is None:
            self._turns[process_id] = Line()
        else:
            await waiting.wait(partial(self._end_turn, process_id))
        try:
            return await self._announce(message, probe=probe)
        finally:
            self._end_turn(process_id)

    def _end_turn(self, process_id: UUID) -> None:
        waiting = self._turns[process_id]
        if waiting:
            waiting.let_go_on()
        else:
            del self._turns[process_id]

    async def _announce(self, message: Advanced, *, probe: bool) -> int:
        confirmed = max(message.announced, self._under_way.pop(message.process_id, 0))
        if message.workflow in self._refused and not probe:
            return confirmed
        course = self._unbound.begin()
        try:
            for entry in message.entries:
                if entry.sequence > confirmed + 1:
                    # The events in between may not be confirmed. They are in the rows, and so is this one.
                    return confirmed
                if entry.sequence <= confirmed:
                    continue
                key = event_key(message, entry)
                if not await course.leaves_out(key):
                    if message.workflow in self._refused and not probe:
                        break  # another process's event was refused meanwhile
                    await course.publish(outgoing.event(key, message, entry))
                confirmed = entry.sequence
        except PublishError as error:
            self._refuse(message, error)
        else:
            if probe:
                self._keep_refused(self._refused - {message.workflow})
        if message.next is None and message.status == "running":
            self._under_way[message.process_id] = confirmed
            if len(self._under_way) > MOST_REMEMBERED:
                del self._under_way[next(iter(self._under_way))]
        return confirmed

    async def record(self, message: Advanced, confirmed: int, *, is_claimed_next: bool) -> None:
        """Record what was confirmed: before returning if events are left, otherwise later together with other marks.

        Nothing is recorded when events before those of the message were missing, because the rows know that already.

        Args:
            is_claimed_next: whether a step command carries the mark to its claim.

        Raises:
            a connection error: the database is away.
        """
        if message.entries and message.entries[0].sequence > message.announced + 1:
            return
        if confirmed < message.sequence:
            self.mark(message.process_id, Mark(confirmed, AGAIN))
            await self.write_marks()
        elif not is_claimed_next:
            self.mark(message.process_id, Mark(confirmed))

    def mark(self, process_id: UUID, mark: Mark) -> None:
        """Collect a mark, to be written with others soon."""
        known = self._marks.get(process_id)
        self._marks[process_id] = mark if known is None else known.merge(mark)
        self._has_marks.set()

    async def write_marks(self) -> None:
        """Write the collected marks; keep them if that fails. If they are lost, events are published twice.

        Raises:
            whatever the database raises.
        """
        async with self._writing:
            self._has_marks.clear()
            marks, self._marks = self._marks, {}
            if not marks:
                return
            try:
                await mark_announced(self._pool, marks)
            except BaseException:
                for process_id, mark in marks.items():
                    self.mark(process_id, mark)
                raise

    async def try_write_marks(self) -> None:
        """Write the collected marks; log why it cannot be done now. They are tried again together with the next ones."""
        try:
            await self.write_marks()
            self._outage.over()
        except Exception as error:
            # An error of the database must not end the coordinator.
            if is_connection_error(error):
                self._outage.report(error)
            else:
                logger.exception("marks not written yet; events may be published twice")

    async def run(self, stopping: asyncio.Event) -> None:
        """Write the collected marks periodically until ``stopping`` is set."""
        while not stopping.is_set():
            waiting = [asyncio.create_task(self._has_marks.wait()), asyncio.create_task(stopping.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            await wait_or_stop(FLUSH_INTERVAL, stopping)
            await self.try_write_marks()

    def keep_refused(self, behind: Collection[str]) -> None:
        """Keep only these workflows as refused: the others have no events left to publish."""
        self._keep_refused(self._refused & set(behind))

    def report_end(self) -> None:
        """Log that the broker confirms events again, once it has done so for a while."""
        if self._trouble_at is None or self._refused:
            return
        if asyncio.get_running_loop().time() - self._trouble_at > CALM:
            self._trouble_at = None
            logger.warning("the broker confirms events again")

    def _refuse(self, message: Advanced, error: PublishError) -> None:
        if self._trouble_at is None:
            logger.warning(
                "the broker does not confirm events; they are kept and published when it does, steps go on",
                process_id=str(message.process_id),
                workflow=message.workflow,
                error=str(error),
            )
        self._trouble_at = asyncio.get_running_loop().time()
        self._refused.add(message.workflow)

    def _keep_refused(self, workflows: set[str]) -> None:
        if workflows != self._refused:
            self._trouble_at = asyncio.get_running_loop().time()
            self._refused = workflows
