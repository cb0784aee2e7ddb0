"""Publish lost commands again, and no others: a command that waits in a queue or in a consumer is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TypeVar
from uuid import UUID

from orchestrator.broker.connection import BrokerAddress, QueueDepth
from orchestrator.broker.depths import Depths
from orchestrator.broker.topology import step_queue
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.progress import Progress
from orchestrator.db.consumers import Report, read_reports
from orchestrator.db.processes.due import Due, bring_forward, give_back, mark_dispatched, postpone
from orchestrator.db.session import Database
from orchestrator.messages import Advanced
from orchestrator.registry import queue_of
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import republish
from orchestrator.settings import Limits

AT_ONCE = 50
"""The most commands to publish at once; they wait only for the broker's confirms."""

LEASE = 15.0
"""Seconds for which no other coordinator publishes the commands that this one has taken."""

UNDECIDED = 1.0
"""Seconds until another check of a command that is not known to be lost, or could not be published."""

PATIENCE = 300.0
"""Seconds for which a backlog explains why a command has not been claimed, if no consumer of its queue reports what it has
received: those of older versions do not."""

SLOW_QUEUE = 100.0
"""The lowest rate, in messages per second, at which a backlog is estimated to be consumed."""

T = TypeVar("T")


class _Verdict(Enum):
    LOST = auto()
    WAITS = auto()
    UNDECIDED = auto()


class Republisher:
    """Publishes lost commands again.

    Args:
        look: handles a process for which more is due than its command; returns the message to publish, or ``None``.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        address: BrokerAddress,
        limits: Limits,
        plans: ProgramPlans,
        look: Callable[[Due], Awaitable[Advanced | None]],
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._depths = Depths(address, "reconcile")
        self._limits = limits
        self._plans = plans
        self._look = look
        self._progress = Progress()
        self._steps: dict[str, set[tuple[str, str | None]]] = {}
        self._backlogs: dict[str, float] = {}

    async def close(self) -> None:
        """Close the connection to the broker."""
        await self._depths.close()

    async def run_once(self, running: Sequence[Due]) -> None:
        """Handle running processes that are due, and postponed ones whose commands turned out to be lost.

        Raises:
            PublishError: the broker is unreachable.
        """
        queues = {one.process_id: self._find_queue(one) for one in running}
        for one in running:
            if (queue := queues[one.process_id]) is not None:
                self._steps.setdefault(queue, set()).add((one.workflow, one.step))
        time = asyncio.get_running_loop().time()
        self._backlogs = {queue: until for queue, until in self._backlogs.items() if until > time}
        names = {queue for queue in queues.values() if queue is not None} | self._backlogs.keys()
        if not names and not running:
            return
        depths = await self._measure(names)
        async with self._database.transaction() as session:
            now, reports = await read_reports(session)
        unpublished = timedelta(seconds=self._limits.redispatch_after / 2)
        self._progress.observe({name: depth.ready for name, depth in depths.items()}, reports, now, unpublished)
        await self._bring_forward(reports)
        found: dict[_Verdict, list[Due]] = {one: [] for one in _Verdict}
        longest = self._limits.redispatch_after
        for one in running:
            queue = queues[one.process_id]
            verdict = _Verdict.LOST if queue is None else self._judge(one, queue, depths[queue], reports, now)
            found[verdict].append(one)
            if verdict is _Verdict.WAITS and queue is not None:
                longest = max(longest, depths[queue].ready / SLOW_QUEUE)
                self._backlogs[queue] = time + 2 * longest
        waiting = [one.process_id for one in found[_Verdict.WAITS]]
        async with self._database.transaction() as session:
            await postpone(session, waiting, longest)
            await postpone(session, [one.process_id for one in found[_Verdict.UNDECIDED]], UNDECIDED)
        self._dispatcher.record_confirmed(waiting)
        await self._publish_all(found[_Verdict.LOST])

    def _find_queue(self, one: Due) -> str | None:
        # A process that must move to another plan does so at once; its step may be in another queue there.
        return queue_of(one.workflow, one.step) if self._plans.has(one.workflow, one.plan) else None

    async def _measure(self, queues: Iterable[str]) -> dict[str, QueueDepth]:
        names = {step_queue(queue): queue for queue in queues}
        return {names[name]: depth for name, depth in (await self._depths.read(names)).items()} if names else {}

    def _judge(self, one: Due, queue: str, depth: QueueDepth, reports: Sequence[Report], now: datetime) -> _Verdict:
        if one.is_dropped:
            return _Verdict.LOST
        readers = [report for report in reports if queue in report.queues]
        if any(one.process_id in reader.received.held for reader in readers):
            # A busy consumer holds it. It may be the first to have room for it, unless others have nothing to do.
            is_wanted = depth.ready == 0 and any(not reader.received.held for reader in readers)
            return _Verdict.LOST if is_wanted else _Verdict.WAITS
        before = self._progress.left_before(queue)
        if before is not None and one.since < before:
            return _Verdict.LOST
        if depth.ready == 0:
            return _Verdict.UNDECIDED
        is_unknown = depth.consumers > 0 and not readers
        return _Verdict.LOST if is_unknown and (now - one.since).total_seconds() >= PATIENCE else _Verdict.WAITS

    async def _bring_forward(self, reports: Sequence[Report]) -> None:
        """Make postponed processes due whose commands are no longer in the backlog for which they were postponed."""
        held = {process_id for report in reports for process_id in report.received.held}
        for queue in self._backlogs:
            before = self._progress.left_before(queue)
            if before is not None and queue in self._steps:
                async with self._database.transaction() as session:
                    await bring_forward(
                        session, self._steps[queue], before, held, first=self._limits.redispatch_after, lease=LEASE
                    )

    async def _publish_all(self, lost: Sequence[Due]) -> None:
        if not lost:
            return
        async with self._database.transaction() as session:
            messages, others = await republish(session, [one.process_id for one in lost], LEASE)
        left = {message.process_id for message in messages} | set(others)
        published: dict[UUID, tuple[int, datetime | None]] = {}

        async def publish(message: Advanced) -> None:
            is_taken = await self._dispatcher.publish(message, is_repeated=True)
            left.discard(message.process_id)
            if message.next is not None:
                published[message.process_id] = (message.next.attempt, message.at if is_taken else None)

        async def decide(one: Due) -> None:
            message = await self._look(one)
            if message is None:
                left.discard(one.process_id)
            else:
                await publish(message)

        try:
            await for_each(messages, publish, AT_ONCE)
            await for_each([one for one in lost if one.process_id in set(others)], decide)
        finally:
            async with self._database.transaction() as session:
                await mark_dispatched(session, published, self._limits.redispatch_after)
                await give_back(session, list(left), UNDECIDED)


async def for_each(items: Iterable[T], action: Callable[[T], Awaitable[None]], at_once: int = 5) -> None:
    """Handle all items, a few at once; after an error begin no more, and raise it."""
    few = asyncio.Semaphore(at_once)
    errors: list[Exception] = []

    async def handle(item: T) -> None:
        async with few:
            if errors:
                return
            try:
                await action(item)
            except Exception as error:
                errors.append(error)

    await asyncio.gather(*map(handle, items))
    if errors:
        raise errors[0]
