"""Read schedules and the record of their slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.types import State


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule's row; :class:`orchestrator.db.tables.schedules.ScheduleRow` explains the columns.

    Args:
        workflow_id: ``None`` when no migration has registered the workflow, or one has removed it.
    """

    schedule_id: UUID
    name: str
    origin: str
    workflow: str
    workflow_id: UUID | None
    inputs: list[State]
    trigger: dict[str, Any]
    enabled: bool
    missed: str
    missed_limit: int
    overlap: str
    jitter: float
    note: str | None
    declared: dict[str, Any] | None
    touched: list[str]
    disabled_reason: str | None
    settled_through: datetime
    next_slot: datetime | None
    due_at: datetime | None
    queued_slot: datetime | None
    last_slot: datetime | None
    last_result: str | None
    last_reason: str | None
    last_process_id: UUID | None
    last_at: datetime | None
    skips: int
    broken: str | None
    created_by: str
    created_at: datetime
    changed_by: str
    changed_at: datetime
    deleted_by: str | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredSlot:
    """What became of a slot, or of several in a row: then ``slot`` is the newest."""

    slot: datetime
    result: str
    reason: str | None
    slots: int
    process_id: UUID | None
    at: datetime


@dataclass(frozen=True, slots=True)
class StoredChange:
    """What was done to a schedule.

    Args:
        changes: field → what it was, and what it became.
    """

    action: str
    author: str
    at: datetime
    reason: str | None
    changes: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which schedules to list: those that are there, of a workflow, of an origin, enabled or not, with a text in the name."""

    workflow: str | None = None
    origin: str | None = None
    enabled: bool | None = None
    name: str | None = None

    def parameters(self) -> dict[str, object]:
        """Return the parameters of a statement."""
        pattern = None if self.name is None else f"%{_escape(self.name)}%"
        return {"workflow": self.workflow, "origin": self.origin, "enabled": self.enabled, "pattern": pattern}


COLUMNS = ", ".join(
    "(SELECT w.workflow_id FROM workflows w WHERE w.name = s.workflow AND w.deleted_at IS NULL) AS workflow_id"
    if one.name == "workflow_id"
    else f"s.{one.name}"
    for one in fields(StoredSchedule)
)
_MATCHES = """
 deleted_at IS NULL
   AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
   AND (CAST(:origin AS text) IS NULL OR origin = :origin)
   AND (CAST(:enabled AS boolean) IS NULL OR enabled = :enabled)
   AND (CAST(:pattern AS text) IS NULL OR name ILIKE :pattern)
"""
# Coordinators pass over rows that others have locked. A program that stands still must not keep them from a schedule for long.
_GUARD = text("SELECT set_config('idle_in_transaction_session_timeout', '5s', true)")
_READ = text(f"SELECT {COLUMNS} FROM schedules s WHERE schedule_id = :schedule_id")  # noqa: S608
_LOCK = text(f"SELECT {COLUMNS} FROM schedules s WHERE schedule_id = :schedule_id FOR UPDATE OF s")  # noqa: S608
_LOCK_NAMES = text(
    f"SELECT {COLUMNS} FROM schedules s WHERE name = ANY(CAST(:names AS text[])) ORDER BY name FOR UPDATE OF s"  # noqa: S608
)
_LIST = text(f"SELECT {COLUMNS} FROM schedules s WHERE {_MATCHES} ORDER BY name OFFSET :first LIMIT :count")  # noqa: S608
_COUNT = text(f"SELECT count(*) FROM schedules WHERE {_MATCHES}")  # noqa: S608
_FIND = text("SELECT schedule_id FROM schedules WHERE name = :name AND (:removed OR deleted_at IS NULL)")
_SLOTS = text(
    """
    SELECT slot, result, reason, slots, process_id, at FROM schedule_slots WHERE schedule_id = :schedule_id
     ORDER BY slot DESC LIMIT :count
    """
)
_CHANGES = text(
    """
    SELECT action, author, at, reason, changes FROM schedule_changes WHERE schedule_id = :schedule_id
     ORDER BY change_id DESC LIMIT :count
    """
)
_STATUS = text("SELECT status FROM processes WHERE process_id = :process_id")


async def read_schedule(session: AsyncSession, schedule_id: UUID) -> StoredSchedule | None:
    """Return a schedule, also one that was removed."""
    return _first(await session.execute(_READ, {"schedule_id": schedule_id}))


async def lock_schedule(session: AsyncSession, schedule_id: UUID) -> StoredSchedule | None:
    """Lock a schedule's row until the transaction ends, and return it; the server ends one that stands still."""
    await limit_idleness(session)
    return _first(await session.execute(_LOCK, {"schedule_id": schedule_id}))


async def lock_schedules(session: AsyncSession, names: Sequence[str]) -> dict[str, StoredSchedule]:
    """Lock the rows of these names, in the order of the names, and return them by it, also those that were removed."""
    await limit_idleness(session)
    rows = (await session.execute(_LOCK_NAMES, {"names": list(names)})).mappings()
    return {row["name"]: StoredSchedule(**row) for row in rows}


async def limit_idleness(session: AsyncSession) -> None:
    """Let the server end this transaction when its program stands still, so that others get the rows that it has locked."""
    await session.execute(_GUARD)


async def find_by_name(session: AsyncSession, name: str, *, removed: bool = False) -> UUID | None:
    """Return the schedule of this name.

    Args:
        removed: whether it may be one that was removed.
    """
    found: UUID | None = await session.scalar(_FIND, {"name": name, "removed": removed})
    return found


async def list_schedules(
    session: AsyncSession, wanted: Wanted, *, first: int = 0, count: int | None = None
) -> list[StoredSchedule]:
    """Return schedules that were not removed, by name."""
    rows = await session.execute(_LIST, {**wanted.parameters(), "first": first, "count": count})
    return [StoredSchedule(**row) for row in rows.mappings()]


async def count_schedules(session: AsyncSession, wanted: Wanted) -> int:
    """Return how many schedules there are."""
    return int(await session.scalar(_COUNT, wanted.parameters()) or 0)


async def list_slots(session: AsyncSession, schedule_id: UUID, count: int) -> list[StoredSlot]:
    """Return what became of a schedule's slots, the newest first."""
    rows = await session.execute(_SLOTS, {"schedule_id": schedule_id, "count": count})
    return [StoredSlot(**row) for row in rows.mappings()]


async def list_changes(session: AsyncSession, schedule_id: UUID, count: int) -> list[StoredChange]:
    """Return what was done to a schedule, the newest first."""
    rows = await session.execute(_CHANGES, {"schedule_id": schedule_id, "count": count})
    return [StoredChange(**row) for row in rows.mappings()]


async def read_status(session: AsyncSession, process_id: UUID) -> str | None:
    """Return the status of a process that a schedule has started; ``None`` when it was deleted."""
    status: str | None = await session.scalar(_STATUS, {"process_id": process_id})
    return status


def _first(result: Any) -> StoredSchedule | None:
    row: Mapping[str, Any] | None = result.mappings().one_or_none()
    return None if row is None else StoredSchedule(**row)


def _escape(written: str) -> str:
    return written.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
