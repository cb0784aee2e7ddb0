"""Recover from PostgreSQL what was lost in a dead consumer, a dead coordinator or a wiped broker.

The rows say what must happen; messages only make it happen soon. So all of this may be done twice, by two coordinators at
once, or late.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar
from uuid import UUID

import structlog

from orchestrator.activity import doing
from orchestrator.broker.connection import BROKER_ERRORS, BrokerAddress, QueueDepth, connect, measure
from orchestrator.broker.topology import step_queue
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.db.consumers import remove_silent_consumers
from orchestrator.db.engine_lock import read_engine_lock
from orchestrator.db.processes.claims import lock_lost_claims
from orchestrator.db.processes.due import Due, find_due, look_later, mark_published, postpone, take_running
from orchestrator.db.session import Database, get_driver, is_connection_error
from orchestrator.db.status import list_overdue
from orchestrator.errors import (
    DefinitionError,
    NotFoundError,
    PlanMismatchError,
    PublishError,
    ServerUnavailableError,
    WorkflowChangedError,
)
from orchestrator.log import log_fields
from orchestrator.messages import Advanced
from orchestrator.registry import queue_of
from orchestrator.services.pause import PauseReport
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import begin, look, release_lost_claim
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message
from orchestrator.types import ProcessStatus
from orchestrator.watchdog import with_blockage

logger = structlog.get_logger(__name__)

BATCH = 100
"""Processes handled in one round; the next round follows at once while there are more."""

AT_ONCE = 5
"""Processes of a round that are handled at once: each waits for the database and for the broker's confirm."""

AT_ONCE_NEW = 25
"""New processes of a round that are published at once: they wait for the broker's confirms only."""

LEASE = 10.0
"""Seconds for which no other coordinator publishes the new processes that this one has taken."""

CLAIMS = 20
"""Claims of silent consumers released in one round, in one transaction."""

LOST_AT_ONCE = 2
"""Commands of lost attempts that are published at once. Many attempts are lost together, and new work goes on beside them."""

REST = 0.5
"""How long nothing follows a round that has released claims, as a multiple of the time that it has taken."""

POSTPONE_BROKEN = 30.0
"""Seconds for which a process is postponed that this coordinator cannot handle, because it lacks the code."""

PATIENCE = 300.0
"""Seconds for which a backlog in a queue that has consumers explains why a command has not been claimed."""

SLOW_QUEUE = 100.0
"""Messages per second that are read from a queue at least, to estimate how long its backlog will last."""

FORGET_CONSUMERS_AFTER = 3600.0
"""Seconds after which a silent consumer without claims is removed from the table."""


OVERDUE_AFTER = 30.0
"""Seconds for which processes may be due before a coordinator that leaves them to others says so; and until it says so again."""


T = TypeVar("T")


class Reconciler:
    """Handles what is due every ``interval`` seconds. Any number may run side by side.

    Args:
        presumed_dead_after: age in seconds after which a claim is released whose consumer has no row. The others say in
            their rows how long they may be silent.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        address: BrokerAddress,
        limits: Limits,
        plans: ProgramPlans,
        *,
        interval: float,
        presumed_dead_after: float,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._address = address
        self._limits = limits
        self._plans = plans
        self._interval = interval
        self._dead_after = presumed_dead_after
        self._pauses = PauseReport()
        self._connected_since: float | None = None
        self._not_released: set[UUID] = set()
        self._reported_at = asyncio.get_running_loop().time()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run rounds until ``stopping`` is set."""
        while not stopping.is_set():
            rest = None
            try:
                with doing("the reconciler"):
                    rest = await self.run_once()
            except PublishError as error:
                logger.warning(with_blockage("the broker is away; trying again"), error=str(error))
            except Exception as error:
                self._connected_since = None
                if is_connection_error(error):
                    logger.warning(with_blockage("the database is away; trying again"), error=format_message(error))
                else:
                    # A defect of ours, in one round. The next rounds still serve the other processes.
                    logger.exception("reconciler round failed")
            # Spread, so that several coordinators do not query at the same moment.
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
            await wait_or_stop(self._interval * spread if rest is None else rest, stopping)

    async def run_once(self) -> float | None:
        """Run one round; if there is more to do, return after how many seconds."""
        async with self._database.transaction() as session:
            await self._plans.refresh(session)
            lock = await read_engine_lock(await get_driver(session))
            due = await find_due(session, BATCH, self._plans.fingerprints, self._plans.current)
        self._pauses.report(lock)
        self._dispatcher.paused = lock.paused
        rest = await self._release_lost_claims()
        if lock.paused:
            due = []
        running = [one for one in due if one.status == ProcessStatus.RUNNING.value]
        new = [one for one in running if one.is_new and self._plans.has(one.workflow, one.plan)]
        await self._begin(new)
        await self._redispatch([one for one in running if one not in new])
        await _for_each([one for one in due if one.status != ProcessStatus.RUNNING.value], self._look)
        if not self._dispatcher.paused:
            await self._report_overdue()
        return 0.01 if len(due) >= BATCH else rest

    async def _report_overdue(self) -> None:
        """Log which processes no coordinator takes, although this one has left them to others for a while."""
        now = asyncio.get_running_loop().time()
        if now - self._reported_at < OVERDUE_AFTER:
            return
        self._reported_at = now
        for one in await list_overdue(self._database.pool, OVERDUE_AFTER):
            if not self._plans.has(one.workflow, one.plan) and one.workflow not in self._plans.current:
                logger.error(
                    "no coordinator takes processes that are due: none has their plan of the workflow",
                    workflow=one.workflow,
                    plan=one.plan,
                    processes=one.processes,
                    seconds=round(one.longest),
                )

    async def _release_lost_claims(self) -> float | None:
        """Release a few; return after how many seconds the next are to follow, if there may be more."""
        # After an outage of the database every consumer has been silent, dead or not. Their time counts from the moment at
        # which this coordinator can read heartbeats again.
        now = asyncio.get_running_loop().time()
        if self._connected_since is None:
            self._connected_since = now
        reads_for = now - self._connected_since
        async with self._database.transaction() as session:
            messages = []
            found = await lock_lost_claims(
                session,
                reads_for=reads_for,
                presumed_dead_after=self._dead_after,
                limit=CLAIMS,
                but_not=self._not_released,
            )
            for claim in found:
                fields = log_fields(claim.process)
                logger.warning("attempt lost", **fields, consumer=claim.consumer, seen=claim.seen)
                try:
                    messages.append(await release_lost_claim(session, claim, self._limits))
                except (NotFoundError, DefinitionError, PlanMismatchError) as error:
                    # Its claim stays as it is, for another coordinator; the next rounds handle those behind it.
                    self._not_released.add(claim.process.process_id)
                    logger.error("process not reconciled", **fields, error=str(error))  # noqa: TRY400
            await remove_silent_consumers(session, FORGET_CONSUMERS_AFTER)
        await _for_each(messages, self._dispatcher.try_publish, LOST_AT_ONCE)
        took = asyncio.get_running_loop().time() - now
        if len(found) < CLAIMS:
            self._not_released.clear()
            return None
        return min(took * REST, self._interval)

    async def _begin(self, new: list[Due]) -> None:
        """Publish the first events and commands of processes that steps have started."""
        if not new:
            return
        async with self._database.transaction() as session:
            messages = await begin(session, [one.process_id for one in new], LEASE)
        published: list[UUID] = []

        async def publish(message: Advanced) -> None:
            await self._dispatcher.publish(message)
            published.append(message.process_id)

        try:
            await _for_each(messages, publish, AT_ONCE_NEW)
        finally:
            async with self._database.transaction() as session:
                await mark_published(session, published, self._limits.redispatch_after)

    async def _redispatch(self, running: list[Due]) -> None:
        """Publish unclaimed commands again, unless they only wait in a queue."""
        if not running:
            return
        depths = await self._measure(
            {queue for one in running if (queue := queue_of(one.workflow, one.step)) is not None}
        )
        waiting, lost_ones, longest = [], [], self._limits.redispatch_after
        for one in running:
            # One that is to move to another plan does so at once; its step may be in another queue there.
            queue = queue_of(one.workflow, one.step) if self._plans.has(one.workflow, one.plan) else None
            depth = depths.get(queue or "")
            if depth is not None and not one.is_dropped and _explains_waiting(depth, one.waited):
                waiting.append(one.process_id)
                longest = max(longest, depth.ready / SLOW_QUEUE)
            else:
                lost_ones.append(one.process_id)
        async with self._database.transaction() as session:
            await postpone(session, waiting, longest)
            taken = set(await take_running(session, lost_ones, self._limits.redispatch_after))
        await _for_each([one for one in running if one.process_id in taken], self._look)

    async def _measure(self, queues: set[str]) -> dict[str, QueueDepth | None]:
        if not queues:
            return {}
        try:
            connection = await connect(self._address, "reconcile")
        except ServerUnavailableError as error:
            raise PublishError(str(error)) from error
        try:
            return {queue: await measure(connection, step_queue(queue)) for queue in queues}
        except BROKER_ERRORS as error:
            raise PublishError(format_message(error)) from error
        finally:
            await connection.close()

    async def _look(self, one: Due) -> None:
        process_id = one.process_id
        try:
            async with self._database.transaction() as session:
                message = await look(session, process_id, self._limits)
        except PlanMismatchError as error:
            # Another plan has just been registered. The next round leaves the process to programs that have it.
            logger.info("process left to another coordinator", **log_fields(one), reason=str(error))
            return
        except (NotFoundError, DefinitionError, WorkflowChangedError) as error:
            # This coordinator lacks the workflow's code (a rolling deploy); another may have it.
            logger.error("process not reconciled", **log_fields(one), error=str(error))  # noqa: TRY400
            async with self._database.transaction() as session:
                await look_later(session, process_id, POSTPONE_BROKEN)
            return
        except Exception as error:
            if is_connection_error(error):
                raise
            # A defect of ours, about one process. If it stayed first in line, no other process would be reconciled.
            logger.exception("process not reconciled", **log_fields(one))
            async with self._database.transaction() as session:
                await look_later(session, process_id, POSTPONE_BROKEN)
            return
        if message is not None:
            await self._dispatcher.publish(message, is_repeated=True)


async def _for_each(items: Iterable[T], action: Callable[[T], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """Handle all items, a few at once; when one raises, begin no more, and raise its error."""
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


def _explains_waiting(depth: QueueDepth, waited: float) -> bool:
    """Return whether the command probably waits in its queue: the queue has messages, and no consumers or not had the time."""
    return depth.ready > 0 and (depth.consumers == 0 or waited < PATIENCE)
