"""Schedules on a real database, for tests: made by the use cases, at times that are given."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.db.session import Database
from orchestrator.engine.schedule import ScheduleDefinition
from orchestrator.engine.triggers import CronTrigger
from orchestrator.services.schedules import ScheduleChanges, add_schedule, edit_schedule
from tests.integration.engine_bench import LIMITS

PAGES = ({"name": "ann"}, {"tone": "kind"})
HOURLY = CronTrigger("0 * * * *", ZoneInfo("UTC"))
AMSTERDAM = CronTrigger("0 21 * * *", ZoneInfo("Europe/Amsterdam"))
GREET = ScheduleDefinition("nightly", "greeting", HOURLY, PAGES)


async def add(database: Database, definition: ScheduleDefinition = GREET, user: str = "ann") -> StoredSchedule:
    async with database.transaction() as session:
        return await add_schedule(session, definition, user, LIMITS)


async def edit(database: Database, schedule_id: UUID, changes: ScheduleChanges, user: str = "bob") -> StoredSchedule:
    async with database.transaction() as session:
        return await edit_schedule(session, schedule_id, changes, user, LIMITS)


async def set_columns(database: Database, schedule_id: UUID, **values: object) -> None:
    columns = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, start=2))
    await database.pool.execute(f"UPDATE schedules SET {columns} WHERE schedule_id = $1", schedule_id, *values.values())


async def set_clock(monkeypatch: pytest.MonkeyPatch, now: str) -> None:
    """Let changes happen at a given time of the database's clock."""

    async def read_time(_: object) -> datetime:
        return datetime.fromisoformat(now)

    monkeypatch.setattr("orchestrator.services.schedules.read_time", read_time)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
