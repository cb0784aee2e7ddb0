"""Store schedules and what people and code change about them. Whoever changes a row holds its lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, null, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import to_jsonb
from orchestrator.db.tables.schedules import ScheduleRow, ScheduleSlotRow
from orchestrator.engine.schedule import SlotResult

_RECORD = text(
    """
    INSERT INTO schedule_changes (schedule_id, action, author, reason, changes)
    VALUES (:schedule_id, :action, :author, :reason, CAST(:changes AS jsonb))
    """
)


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a schedule, for its record.

    Args:
        changes: field → what it was, and what it became.
    """

    action: str
    author: str
    reason: str | None = None
    changes: Mapping[str, tuple[Any, Any]] | None = None


async def insert_schedule(session: AsyncSession, schedule_id: UUID, values: Mapping[str, Any], change: Change) -> bool:
    """Store a schedule; return whether its name was free, also of schedules that were removed."""
    row = {"schedule_id": schedule_id, "created_by": change.author, "changed_by": change.author, **values}
    adding = upsert(ScheduleRow).values(row).on_conflict_do_nothing(index_elements=["name"])
    stored = await session.scalar(adding.returning(ScheduleRow.schedule_id))
    if stored is not None:
        await _record(session, schedule_id, change)
    return stored is not None


async def update_schedule(session: AsyncSession, schedule_id: UUID, values: Mapping[str, Any], change: Change) -> None:
    """Change columns of a schedule, and record who did so."""
    changing = update(ScheduleRow).where(ScheduleRow.schedule_id == schedule_id)
    # None is NULL, and not the null of JSON.
    columns = {name: null() if value is None else value for name, value in values.items()}
    await session.execute(changing.values(changed_by=change.author, changed_at=func.now(), **columns))
    await _record(session, schedule_id, change)


async def update_declared(session: AsyncSession, schedule_id: UUID, declared: Mapping[str, Any] | None) -> None:
    """Store what the code declares about a schedule that stays as it is."""
    changing = update(ScheduleRow).where(ScheduleRow.schedule_id == schedule_id)
    await session.execute(changing.values(declared=null() if declared is None else dict(declared)))


async def withdraw_slot(session: AsyncSession, schedule_id: UUID, slot: datetime, reason: str) -> None:
    """Record that a slot which was queued does not start."""
    values = {"schedule_id": schedule_id, "slot": slot, "result": SlotResult.WITHDRAWN.value, "reason": reason}
    recording = upsert(ScheduleSlotRow).values(values)
    await session.execute(
        recording.on_conflict_do_update(
            index_elements=["schedule_id", "slot"],
            set_={"result": SlotResult.WITHDRAWN.value, "reason": reason, "at": func.now()},
        )
    )


async def record_start(session: AsyncSession, schedule_id: UUID, at: datetime, process_id: UUID, reason: str) -> None:
    """Record that a process was started beside the slots. The cursor stays where it is."""
    values = {
        "schedule_id": schedule_id,
        "slot": at,
        "result": SlotResult.STARTED.value,
        "reason": reason,
        "process_id": process_id,
    }
    await session.execute(insert(ScheduleSlotRow).values(values))
    last = {
        "last_slot": at,
        "last_result": SlotResult.STARTED.value,
        "last_reason": reason,
        "last_process_id": process_id,
        "last_at": func.now(),
        "broken": None,  # it has just started something
    }
    await session.execute(update(ScheduleRow).where(ScheduleRow.schedule_id == schedule_id).values(last))


async def _record(session: AsyncSession, schedule_id: UUID, change: Change) -> None:
    changes = {name: list(pair) for name, pair in (change.changes or {}).items()}
    await session.execute(
        _RECORD,
        {
            "schedule_id": schedule_id,
            "action": change.action,
            "author": change.author,
            "reason": change.reason,
            "changes": to_jsonb(changes),
        },
    )
