"""Schedulers whose clock a test sets, on a real database; what they publish is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.scheduler import Scheduler
from orchestrator.db.schedules.changes import Change, insert_schedule
from orchestrator.db.session import Database
from orchestrator.engine.schedule import ScheduleDefinition, write_definition
from orchestrator.engine.triggers import CronTrigger, Trigger
from orchestrator.messages import Advanced
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.schedule_store import stand
from orchestrator.settings import Limits
from tests.unit.wall_clock import utc

LIMITS = Limits(redispatch_after=5, step_timeout=60, state_soft_limit=1000, state_hard_limit=1000)


def cron(expression: str, zone: str = "UTC") -> CronTrigger:
    return CronTrigger(expression, ZoneInfo(zone))


NOON_IS_NEAR = utc("2026-11-25T11:30")
HOURLY = cron("0 * * * *")


class Published(Dispatcher):
    """Keeps what is to be published."""

    def __init__(self) -> None:
        self.messages: list[Advanced] = []

    async def try_publish(self, message: Advanced) -> None:
        self.messages.append(message)


@dataclass
class Rounds:
    """Schedulers on one database, with one clock."""

    database: Database
    now: datetime = NOON_IS_NEAR
    published: Published = field(default_factory=Published)

    def make_scheduler(self, *, workflows: list[str] | None = None, ahead: timedelta = timedelta()) -> Scheduler:
        """Return a scheduler, whose own clock may be ahead: only the database's counts."""
        known = ProgramPlans.load().workflows if workflows is None else workflows
        return Scheduler(self.database, self.published, LIMITS, known, interval=20, clock=lambda: self.now + ahead)

    async def add(
        self, name: str = "nightly", trigger: Trigger = HOURLY, workflow: str = "greeting", **others: Any
    ) -> UUID:
        """Add a schedule that is enabled now."""
        others.setdefault("inputs", ({"name": "Ann"}, {"tone": "warm"}) if workflow == "greeting" else ())
        definition = ScheduleDefinition(name, workflow, trigger, **others)
        schedule_id = uuid4()
        values = {
            "name": name,
            "origin": "person",
            **write_definition(definition),
            **stand(schedule_id, definition, self.now),
        }
        async with self.database.transaction() as session:
            assert await insert_schedule(session, schedule_id, values, Change("added", "ann"))
        return schedule_id

    async def at(self, now: str, *schedulers: Scheduler) -> None:
        """Set the clock and run rounds at once, until nothing is due."""
        self.now = utc(now)
        for _ in range(100):
            pauses = await asyncio.gather(*(one.run_once() for one in schedulers or [self.make_scheduler()]))
            if min(pauses) > 0:
                return
        raise AssertionError("rounds without an end")

    async def slots(self, name: str = "nightly") -> list[tuple[str, str]]:
        """Return the record of a schedule's slots, in order."""
        rows = await self.database.pool.fetch(
            "SELECT r.slot, r.result FROM schedule_slots r JOIN schedules USING (schedule_id) WHERE name = $1 ORDER BY 1",
            name,
        )
        return [(f"{row['slot']:%H:%M}", row["result"]) for row in rows]

    async def row(self, name: str = "nightly") -> dict[str, Any]:
        """Return a schedule's row."""
        return dict(await self.database.pool.fetchrow("SELECT * FROM schedules WHERE name = $1", name) or {})

    async def count(self, query: str = "SELECT count(*) FROM processes", *values: object) -> int:
        """Return a number from the database; without a query that of the processes."""
        found: int = await self.database.pool.fetchval(query, *values)
        return found

    async def set_status(self, status: str) -> None:
        """Let every process have a status."""
        await self.database.pool.execute("UPDATE processes SET status = $1, claimed_by = NULL", status)
