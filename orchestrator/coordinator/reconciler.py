"""Rebuilds from PostgreSQL whatever was lost: in a dead consumer, a dead coordinator or a wiped broker.

The rows say what must happen; messages only make it happen soon. So everything here may be done twice, by two coordinators
at once, or late.
"""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from uuid import UUID

import structlog

from orchestrator.broker.connection import BROKER_ERRORS, BrokerAddress, QueueDepth, connect, measure
from orchestrator.broker.topology import step_queue
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.db.consumers import remove_silent_consumers
from orchestrator.db.engine_lock import is_paused
from orchestrator.db.processes.claims import Claim, lock_lost_claims
from orchestrator.db.processes.due import Due, find_due, look_later, postpone, take_running
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.process import Process
from orchestrator.errors import (
    DefinitionError,
    NotFoundError,
    PublishError,
    ServerUnavailableError,
    UnroutableError,
    WorkflowChangedError,
)
from orchestrator.registry import queue_of
from orchestrator.services.reconcile import look, lost
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message
from orchestrator.types import ProcessStatus

logger = structlog.get_logger(__name__)

BATCH = 100
"""Processes looked at in one round; the next round follows at once while there are more."""

CLAIMS = 2000
"""Claims of silent consumers given back in one round: all of one consumer's together, so that blame can be laid."""

CANNOT_HELP = 30.0
"""Seconds for which a process is left alone whose code this coordinator lacks."""

PATIENCE = 300.0
"""Seconds for which a backlog in its queue, while somebody reads it, explains why a command has not been claimed."""

SLOW_QUEUE = 100.0
"""Messages a second that a queue is read with at least, to guess how long its backlog will last."""

FORGET_CONSUMERS_AFTER = 3600.0
"""Seconds after which a silent consumer without claims is removed from the table."""


class Reconciler:
    """Looks at what is due, every ``interval`` seconds. Any number may run side by side.

    Args:
        presumed_dead_after: seconds of silence after which a consumer's claims are given back.
        max_lost_attempts: how many consumers in a row a step may bring down.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        address: BrokerAddress,
        limits: Limits,
        *,
        interval: float,
        presumed_dead_after: float,
        max_lost_attempts: int,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._address = address
        self._limits = limits
        self._interval = interval
        self._dead_after = presumed_dead_after
        self._max_lost = max_lost_attempts
        self._seeing_since: float | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until ``stopping`` is set."""
        while not stopping.is_set():
            more = False
            try:
                more = await self.look_once()
            except PublishError as error:
                logger.warning("the broker is away; looking again", error=str(error))
            except Exception as error:
                self._seeing_since = None
                if is_connection_error(error):
                    logger.warning("the database is away; looking again", error=format_message(error))
                else:
                    # A defect of ours, in one round. The next rounds still help every other process.
                    logger.exception("reconciler round failed")
            # Spread, so that several coordinators do not look at the same moment.
            spread = random.uniform(0.8, 1.2)  # noqa: S311 - not for secrets
            await wait_or_stop(0.01 if more else self._interval * spread, stopping)

    async def look_once(self) -> bool:
        """One round; whether there is more to do at once."""
        async with self._database.transaction() as session:
            self._dispatcher.paused = await is_paused(session)
            due = await find_due(session, BATCH)
        await self._give_back_claims()
        if self._dispatcher.paused:
            due = []
        running = [one for one in due if one.status == ProcessStatus.RUNNING.value]
        await self._publish_again(running)
        for one in due:
            if one.status != ProcessStatus.RUNNING.value:
                await self._attend(one)
        return len(due) >= BATCH

    async def _give_back_claims(self) -> None:
        # After an outage of the database every consumer has been silent, dead or not. They get their time to speak again
        # from the moment at which we could have heard them.
        now = asyncio.get_running_loop().time()
        if self._seeing_since is None:
            self._seeing_since = now
        if now - self._seeing_since < self._dead_after:
            return
        async with self._database.transaction() as session:
            messages = []
            found = await lock_lost_claims(session, self._dead_after, CLAIMS)
            bystanders = _bystanders(found, self._max_lost)
            for claim in found:
                names = _names(claim.process)
                logger.warning("attempt lost", **names, attempt=claim.process.attempt, consumer=claim.consumer)
                counted = claim.process.process_id not in bystanders
                try:
                    messages.append(await lost(session, claim, self._max_lost, self._limits, counted=counted))
                except (NotFoundError, DefinitionError) as error:
                    logger.error("process not looked at", **names, error=str(error))  # noqa: TRY400
            await remove_silent_consumers(session, FORGET_CONSUMERS_AFTER)
        for message in messages:
            await self._dispatcher.act_quietly(message)

    async def _publish_again(self, running: list[Due]) -> None:
        """Publish commands again that nobody has claimed, unless they just wait in a queue."""
        if not running:
            return
        depths = await self._depths(
            {queue for one in running if (queue := queue_of(one.workflow, one.step)) is not None}
        )
        waiting, lost_ones, longest = [], [], self._limits.redispatch_after
        for one in running:
            depth = depths.get(queue_of(one.workflow, one.step) or "")
            if depth is not None and _explains_waiting(depth, one.waited):
                waiting.append(one.process_id)
                longest = max(longest, depth.ready / SLOW_QUEUE)
            else:
                lost_ones.append(one.process_id)
        async with self._database.transaction() as session:
            await postpone(session, waiting, longest)
            taken = set(await take_running(session, lost_ones, self._limits.redispatch_after))
        for one in running:
            if one.process_id in taken:
                await self._attend(one)

    async def _depths(self, queues: set[str]) -> dict[str, QueueDepth | None]:
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

    async def _attend(self, one: Due) -> None:
        process_id = one.process_id
        try:
            async with self._database.transaction() as session:
                message = await look(session, process_id, self._limits)
        except (NotFoundError, DefinitionError, WorkflowChangedError) as error:
            # This coordinator lacks the workflow's code (a rolling deploy); another may have it.
            logger.error("process not looked at", **_names(one), error=str(error))  # noqa: TRY400
            async with self._database.transaction() as session:
                await look_later(session, process_id, CANNOT_HELP)
            return
        except Exception as error:
            if is_connection_error(error):
                raise
            # A defect of ours, about one process. Left first in line, it would keep every other from being looked at.
            logger.exception("process not looked at", **_names(one))
            async with self._database.transaction() as session:
                await look_later(session, process_id, CANNOT_HELP)
            return
        if message is not None:
            try:
                await self._dispatcher.act(message)
            except UnroutableError as error:
                # One step queue cannot be had; every other process is looked at all the same.
                logger.error("not published", process_id=str(process_id), error=str(error))  # noqa: TRY400


def _names(one: Due | Process) -> dict[str, object]:
    return {"process_id": str(one.process_id), "workflow": one.workflow, "step": one.step}


def _explains_waiting(depth: QueueDepth, waited: float) -> bool:
    """Whether the command probably waits in its queue: something does, and nobody reads it or they are still at it."""
    return depth.ready > 0 and (depth.consumers == 0 or waited < PATIENCE)


def _bystanders(claims: list[Claim], limit: int) -> set[UUID]:
    """Of processes that lost their consumers: those on their last chance that are probably not to blame.

    A step that brings down its consumer takes its neighbours along, and they must not be failed for it. Consumers take
    processes on their last chance one by one (see ``consumers.runner``), so of several that died together the one that was
    claimed last is the one under suspicion.
    """
    last: dict[UUID, Claim] = {}
    suspects = [claim for claim in claims if claim.process.lost >= limit - 1]
    for claim in suspects:
        known = last.get(claim.consumer_id)
        if known is None or _moment(claim) > _moment(known):
            last[claim.consumer_id] = claim
    return {claim.process.process_id for claim in suspects if last[claim.consumer_id] is not claim}


def _moment(claim: Claim) -> tuple[datetime, UUID]:
    return claim.claimed_at, claim.process.process_id
