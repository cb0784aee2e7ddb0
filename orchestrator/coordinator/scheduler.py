"""Start the due slots of schedules. Any number of schedulers may run, without a leader: a row lock decides who starts a slot.

The time is the database's. Between two rounds a scheduler remembers only which schedules are in progress or left to others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.activity import doing
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.metrics import Metrics
from orchestrator.db.schedules import firing as rows
from orchestrator.db.schedules.overdue import count_overdue_schedules
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.due_slots import RUNNING
from orchestrator.engine.zones import find_rules
from orchestrator.errors import ConnectionLostError, DefinitionError, OrchestratorError
from orchestrator.outage import Outage
from orchestrator.services.firing import Fired, PreparedFiring, fire, move_earlier, prepare_firing
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message, sanitise

logger = structlog.get_logger(__name__)

BATCH: Final = 100
"""The most schedules in progress."""

AT_ONCE: Final = 5
"""The most of these to store at once, because each holds a connection."""

SLOTS: Final = 20
"""The most slots of one schedule to start before other schedules get their turn."""

LEFT_FOR: Final = 30.0
"""Seconds until a schedule is tried again that this coordinator cannot handle."""

UNKNOWN_AFTER: Final = 60.0
"""Seconds after which a schedule is marked that no coordinator takes, and between two searches for such schedules."""

COUNT_AFTER: Final = 10.0
"""Seconds between two counts of overdue schedules, for the metrics."""

NO_CODE: Final = "no running coordinator has working code of its workflow: it starts when one has"


class Scheduler:
    """Handles due schedules every ``interval`` seconds, and sooner when it knows of one that will be due.

    Args:
        workflows: those that this program can start.
        clock: returns the time instead of the database, for tests.
    """

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        limits: Limits,
        workflows: Collection[str],
        *,
        interval: float,
        metrics: Metrics | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._limits = limits
        self._workflows = workflows
        self._interval = interval
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._few = asyncio.Semaphore(AT_ONCE)
        self._busy: dict[UUID, asyncio.Task[None]] = {}
        self._publishing: set[asyncio.Task[None]] = set()
        self._left: dict[UUID, float] = {}
        self._reported_at = asyncio.get_running_loop().time()
        self._counted_at = float("-inf")
        self._has_checked_rules = False
        self._outage = Outage("the database is away; trying again", "the database answers again", part="scheduler")

    async def run(self, stopping: asyncio.Event) -> None:
        """Run rounds until ``stopping`` is set; then finish what has begun."""
        while not stopping.is_set():
            pause = self._interval
            try:
                with doing("the scheduler"):
                    pause = await self.run_once()
                self._outage.over()
            except Exception as error:
                self._report(error, "scheduler round failed")
            # Never longer than the interval: another program may add a schedule, and a clock may step.
            await wait_or_stop(pause, stopping)
        if unfinished := {*self._busy.values(), *self._publishing}:
            await asyncio.wait(unfinished)

    async def run_once(self) -> float:
        """Run one round; return the seconds until the next. Work that takes longer continues beside the next rounds."""
        if not self._has_checked_rules:
            await self._check_rules()
            self._has_checked_rules = True
        await self._report_unknown()
        pause = await self._fire_due()
        self._metrics.end_round(await self._count_overdue())
        return pause

    async def _fire_due(self) -> float:
        moment = asyncio.get_running_loop().time()
        self._left = {one: until for one, until in self._left.items() if until > moment}
        batch = BATCH - len(self._busy)
        async with self._database.transaction() as session:
            found = await rows.find_due(
                session,
                self._workflows,
                leave_out=[*self._busy, *self._left],
                running=RUNNING,
                ahead=self._interval,
                batch=batch + 1,
                now=self._now(),
            )
        coming = [one.due_in for one in found if one.due_in > 0]
        # Both halves of the statement may have found the same schedule.
        due = list(dict.fromkeys((one.schedule_id, one.workflow) for one in found if one.due_in <= 0))
        # Several coordinators find the same schedules, and each prepares those that it gets to.
        random.shuffle(due)
        for schedule_id, workflow in due[:batch]:
            self._busy[schedule_id] = asyncio.create_task(self._handle(schedule_id, workflow))
        if self._busy:
            await asyncio.wait(self._busy.values(), timeout=self._interval)
        if len(due) > batch or self._busy:
            return 0.0
        spread = random.uniform(0.8, 1.0)  # noqa: S311 - not for secrets
        return min(coming, default=self._interval * spread)

    async def _handle(self, schedule_id: UUID, workflow: str) -> None:
        """Start the due slots of one schedule; errors concern only this one."""
        try:
            for _ in range(SLOTS):
                fired = await self._fire(schedule_id, workflow)
                if fired.left:
                    self._leave(schedule_id)
                if not fired.again:
                    return
        except OrchestratorError as error:
            # This coordinator lacks the code. Another one may have it.
            logger.info("schedule left to another coordinator", schedule_id=str(schedule_id), reason=str(error))
            self._leave(schedule_id)
        except Exception as error:
            self._report(error, "schedule not handled", schedule_id=str(schedule_id))
            if is_connection_error(error) or rows.is_passing(error):
                return
            self._leave(schedule_id)
            await self._postpone(schedule_id, error)
        finally:
            del self._busy[schedule_id]

    async def _fire(self, schedule_id: UUID, workflow: str) -> Fired:
        try:
            prepared = await self._database.author_code.run(
                workflow, lambda session: self._prepare(session, schedule_id)
            )
        except ConnectionLostError as error:
            # The slot is refused, because with each retry that code would lose another connection.
            async with self._database.transaction() as session:
                prepared = await self._prepare(session, schedule_id, error)
        if prepared is None:
            return Fired()
        async with self._few, self._database.transaction() as session:
            fired = await fire(session, schedule_id, prepared, self._limits, self._now())
        for record in fired.records:
            self._metrics.count_slots(record.result, record.slots)
        if fired.message is not None and len(self._publishing) < BATCH:
            # Beside the other starts, which do not wait for the broker. The reconciler publishes what is left out.
            publishing = asyncio.create_task(self._dispatcher.try_publish(fired.message))
            self._publishing.add(publishing)
            publishing.add_done_callback(self._finish_publishing)
        return fired

    async def _prepare(
        self, session: AsyncSession, schedule_id: UUID, refusal: DefinitionError | None = None
    ) -> PreparedFiring | None:
        prepared = await prepare_firing(session, schedule_id, self._limits, self._now(), refusal=refusal)
        await session.rollback()
        return prepared

    def _finish_publishing(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("not published", exc_info=error)

    async def _postpone(self, schedule_id: UUID, error: Exception) -> None:
        why = sanitise(f"a defect keeps it from starting: {type(error).__name__}: {format_message(error)}")
        try:
            async with self._database.transaction() as session:
                await rows.postpone(session, schedule_id, LEFT_FOR, why, self._now())
        except Exception as failure:
            self._report(failure, "schedule not postponed", schedule_id=str(schedule_id))

    async def _report_unknown(self) -> None:
        """Mark the schedules that this coordinator has left to others for a while, and none has taken."""
        moment = asyncio.get_running_loop().time()
        if moment - self._reported_at < UNKNOWN_AFTER:
            return
        self._reported_at = moment
        async with self._database.transaction() as session:
            found = await rows.report_unknown(session, self._workflows, UNKNOWN_AFTER, NO_CODE, self._now())
        for name, workflow in found:
            logger.error("no coordinator takes a schedule that is due", schedule=name, workflow=workflow)

    async def _count_overdue(self) -> int | None:
        """Return how many schedules are overdue, if it is time to count them; otherwise ``None``."""
        moment = asyncio.get_running_loop().time()
        if moment - self._counted_at < COUNT_AFTER:
            return None
        self._counted_at = moment
        return await count_overdue_schedules(self._database.pool)

    async def _check_rules(self) -> None:
        """Compute anew the next slots that were computed by other rules of their time zone: they may be earlier now."""
        after: UUID | None = None
        while True:
            async with self._database.transaction() as session:
                found = await rows.list_with_other_rules(
                    session, find_rules(), after=after, batch=BATCH, now=self._now()
                )
            for after in found:
                async with self._database.transaction() as session:
                    if await move_earlier(session, after, self._now()):
                        logger.info("schedule is due earlier by the present rules of its zone", schedule_id=str(after))
            if len(found) < BATCH:
                return

    def _leave(self, schedule_id: UUID) -> None:
        self._left[schedule_id] = asyncio.get_running_loop().time() + LEFT_FOR

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock()

    def _report(self, error: Exception, what: str, **fields: str) -> None:
        if is_connection_error(error):
            self._outage.report(error, **fields)
        elif rows.is_passing(error):
            logger.warning("schedule tried again: its transaction has lost", error=format_message(error), **fields)
        else:
            # A bug in the engine, in one round or about one schedule. The others are served all the same.
            logger.error(what, exc_info=error, **fields)
