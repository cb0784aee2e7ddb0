"""Recover from PostgreSQL what was lost in a dead consumer, a dead coordinator or a wiped broker.

The rows say what must happen; messages only make it happen sooner. So everything here may be done late, twice, or by two
coordinators at once.
"""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import structlog

from orchestrator.activity import doing
from orchestrator.broker.connection import BrokerAddress
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.republisher import Republisher, for_each
from orchestrator.db.consumers import remove_silent_consumers
from orchestrator.db.engine_lock import read_engine_lock
from orchestrator.db.processes.claims import lock_lost_claims
from orchestrator.db.processes.due import Due, find_due, look_later, mark_published
from orchestrator.db.session import Database, get_driver, is_connection_error
from orchestrator.db.silent_sessions import end_silent_sessions
from orchestrator.db.status import list_overdue
from orchestrator.errors import (
    DefinitionError,
    NotFoundError,
    PlanMismatchError,
    PublishError,
    WorkflowChangedError,
)
from orchestrator.log import log_fields
from orchestrator.messages import Advanced
from orchestrator.outage import Outage
from orchestrator.services.pause import PauseReport
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import begin, look, release_lost_claim
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.types import ProcessStatus

logger = structlog.get_logger(__name__)

BATCH = 100
"""The most resting processes in one round; the next round follows at once while there are more."""

RUNNING_BATCH = 500
"""The same for running ones, whose commands are published, or which are postponed, many at once."""

AT_ONCE_NEW = 25
"""New processes of a round that are published at once: they wait for the broker's confirms only."""

LEASE = 10.0
"""Seconds for which no other coordinator publishes the new processes that this one has taken."""

CLAIMS = 20
"""Claims of silent consumers released in one round, in one transaction."""

LOST_AT_ONCE = 2
"""The most commands of lost attempts to publish at once: many attempts are lost together, and new work must go on."""

REST = 0.5
"""The pause after a round that has released claims, as a multiple of the round's duration."""

POSTPONE_BROKEN = 30.0
"""Seconds for which a process is postponed that this coordinator cannot handle, because it lacks the code."""

FORGET_CONSUMERS_AFTER = 3600.0
"""Seconds after which a silent consumer without claims is removed from the table."""


OVERDUE_AFTER = 30.0
"""Seconds that processes may be due before a coordinator that leaves them to others logs it, and between two such lines."""


class Reconciler:
    """Handles what is due, every ``interval`` seconds. Any number of reconcilers may run side by side.

    Args:
        presumed_dead_after: age in seconds at which a claim is released whose consumer has no row. The rows of the others
            say how long these may be silent.
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
        self._limits = limits
        self._plans = plans
        self._republisher = Republisher(database, dispatcher, address, limits, plans, self._look)
        self._interval = interval
        self._dead_after = presumed_dead_after
        self._pauses = PauseReport()
        self._connected_since: float | None = None
        self._not_released: set[UUID] = set()
        self._reported_at = asyncio.get_running_loop().time()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run rounds until ``stopping`` is set."""
        try:
            await self._run(stopping)
        finally:
            await self._republisher.close()

    async def _run(self, stopping: asyncio.Event) -> None:
        database = Outage("the database is away; trying again", "the database answers again", part="reconciler")
        broker = Outage("the broker is away; trying again", "the broker takes messages again", part="reconciler")
        while not stopping.is_set():
            rest = None
            try:
                with doing("the reconciler"):
                    rest = await self.run_once()
                database.over()
                broker.over()
            except PublishError as error:
                broker.report(error)
            except Exception as error:
                self._connected_since = None
                if is_connection_error(error):
                    database.report(error)
                else:
                    # A bug in the engine, in one round. The next rounds still serve the other processes.
                    logger.exception("reconciler round failed")
            # With jitter, so that several coordinators do not query at the same moment.
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
            await wait_or_stop(self._interval * spread if rest is None else rest, stopping)

    async def run_once(self) -> float | None:
        """Run one round; if there is more to do, return the seconds until the next."""
        async with self._database.transaction() as session:
            await self._plans.refresh(session)
            lock = await read_engine_lock(await get_driver(session))
            due = await find_due(
                session, self._plans.fingerprints, self._plans.current, at_rest=BATCH, running=RUNNING_BATCH
            )
        self._pauses.report(lock)
        self._dispatcher.paused = lock.paused
        rest = await self._release_lost_claims()
        if lock.paused:
            due = []
        running = [one for one in due if one.status == ProcessStatus.RUNNING.value]
        new = [one for one in running if one.is_new and self._plans.has(one.workflow, one.plan)]
        await self._begin(new)
        is_new = {one.process_id for one in new}
        if not lock.paused:
            await self._republisher.run_once([one for one in running if one.process_id not in is_new])
        at_rest = [one for one in due if one.status != ProcessStatus.RUNNING.value]
        await for_each(at_rest, self._look_and_publish)
        if not self._dispatcher.paused:
            await self._report_overdue()
        return 0.01 if len(running) >= RUNNING_BATCH or len(at_rest) >= BATCH else rest

    async def _report_overdue(self) -> None:
        """Log the processes that this coordinator has left to others for a while, and none has taken."""
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
        """Release a few lost claims; return the seconds until the next if there may be more."""
        # After an outage of the database every consumer has been silent, dead or not. Their time counts from the moment when
        # this coordinator can read heartbeats again.
        now = asyncio.get_running_loop().time()
        if self._connected_since is None:
            self._connected_since = now
        reads_for = now - self._connected_since
        # This comes first, because their locks prevent the release of their claims and delay the next attempts.
        for one in await end_silent_sessions(self._database.pool, reads_for):
            logger.warning(
                "session of a silent consumer ended in PostgreSQL, with what it had locked",
                consumer=one.consumer,
                server_process=one.server_process,
                seconds=round(one.silent_for, 1),
            )
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
                    # Its claim is left to another coordinator; the next rounds handle those after it.
                    self._not_released.add(claim.process.process_id)
                    logger.error("process not reconciled", **fields, error=str(error))  # noqa: TRY400
            await remove_silent_consumers(session, FORGET_CONSUMERS_AFTER)
        await for_each(messages, self._dispatcher.try_publish, LOST_AT_ONCE)
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
        if not messages:
            return
        published: list[UUID] = []

        async def publish(message: Advanced) -> None:
            await self._dispatcher.publish(message)
            published.append(message.process_id)

        try:
            await for_each(messages, publish, AT_ONCE_NEW)
        finally:
            async with self._database.transaction() as session:
                await mark_published(session, published, messages[0].at, self._limits.redispatch_after)

    async def _look_and_publish(self, one: Due) -> None:
        message = await self._look(one)
        if message is not None:
            await self._dispatcher.publish(message, is_repeated=True)

    async def _look(self, one: Due) -> Advanced | None:
        process_id = one.process_id
        try:
            async with self._database.transaction() as session:
                return await look(session, process_id, self._limits)
        except PlanMismatchError as error:
            # Another plan has just been registered. The next round leaves the process to programs that have it.
            logger.info("process left to another coordinator", **log_fields(one), reason=str(error))
        except (NotFoundError, DefinitionError, WorkflowChangedError) as error:
            # This coordinator lacks the workflow's code (a rolling deploy); another may have it.
            logger.error("process not reconciled", **log_fields(one), error=str(error))  # noqa: TRY400
            async with self._database.transaction() as session:
                await look_later(session, process_id, POSTPONE_BROKEN)
        except Exception as error:
            if is_connection_error(error):
                raise
            # A bug in the engine, about one process. If it stayed first in line, no other process would be reconciled.
            logger.exception("process not reconciled", **log_fields(one))
            async with self._database.transaction() as session:
                await look_later(session, process_id, POSTPONE_BROKEN)
        return None
