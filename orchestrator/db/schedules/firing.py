"""Find schedules that are due, take one, and store what becomes of its slots. Any number of coordinators may do so at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.types import ProcessStatus, State

LOCK_TIMEOUT, IDLE_TIMEOUT, STATEMENT_TIMEOUT = "2s", "5s", "10s"
"""Of the transaction that takes a schedule. The server ends it when its coordinator stands still, and another takes its place."""

_IS_LIVE = "s.enabled AND s.deleted_at IS NULL"
_NOW = "COALESCE(CAST(:now AS timestamptz), now())"
"""SQL: the database's time, unless a test has given another. Constant within a statement, so that indexes can be used."""

# A workflow that no migration has registered cannot be started by anybody; whoever finds its schedule records that.
_IS_FOR_ME = """
(s.workflow = ANY(CAST(:known AS text[]))
 OR NOT EXISTS (SELECT FROM workflows w WHERE w.name = s.workflow AND w.deleted_at IS NULL))
AND NOT s.schedule_id = ANY(CAST(:except AS uuid[]))
"""
_FIND = text(
    f"""
    (SELECT s.schedule_id, s.workflow, EXTRACT(EPOCH FROM s.due_at - {_NOW})::float8 AS due_in
       FROM schedules s
      WHERE {_IS_LIVE} AND s.due_at <= {_NOW} + :ahead * interval '1 second' AND {_IS_FOR_ME}
      ORDER BY s.due_at LIMIT :batch)
    UNION ALL
    (SELECT s.schedule_id, s.workflow, 0
       FROM schedules s LEFT JOIN processes p ON p.process_id = s.last_process_id
      WHERE s.queued_slot IS NOT NULL AND {_IS_LIVE} AND {_IS_FOR_ME}
        AND (p.status IS NULL OR p.status <> ALL(CAST(:running AS text[])))
      LIMIT :batch)
    """  # noqa: S608 - built from constants
)

_GUARD = text(
    """
    SELECT set_config('lock_timeout', :lock, true), set_config('idle_in_transaction_session_timeout', :idle, true),
           set_config('statement_timeout', :statement, true)
    """
)

_LAST_STATUS = text("SELECT status FROM processes WHERE process_id = :process_id")

_HAS_RECORD = text("SELECT EXISTS (SELECT FROM schedule_slots WHERE schedule_id = :schedule_id AND slot = :slot)")
_RECORD = text(
    """
    INSERT INTO schedule_slots (schedule_id, slot, result, reason, slots, process_id)
    VALUES (:schedule_id, :slot, :result, :reason, :slots, :process_id)
    ON CONFLICT (schedule_id, slot) DO NOTHING
    """
)
_CHANGE_QUEUED = text(
    """
    UPDATE schedule_slots SET result = :result, reason = :reason, process_id = :process_id, at = now()
     WHERE schedule_id = :schedule_id AND slot = :slot AND result = 'queued'
    """
)

_MOVE = text(
    """
    UPDATE schedules
       SET settled_through = :settled_through, settled_wall = :settled_wall, queued_slot = :queued_slot,
           next_slot = :next_slot, due_at = :due_at, zone_rules = :zone_rules, broken = NULL
     WHERE schedule_id = :schedule_id
    """
)
_MARK = text(
    """
    UPDATE schedules
       SET last_slot = :slot, last_result = :result, last_reason = :reason, last_at = now(),
           last_process_id = COALESCE(:process_id, last_process_id), skips = :skips, broken = :broken
     WHERE schedule_id = :schedule_id
    """
)

_POSTPONE = text(
    f"""
    UPDATE schedules AS s SET broken = :why, due_at = {_NOW} + :seconds * interval '1 second'
     WHERE s.schedule_id IN (SELECT schedule_id FROM schedules WHERE schedule_id = :schedule_id
                                FOR NO KEY UPDATE SKIP LOCKED)
       AND {_IS_LIVE}
    """  # noqa: S608 - built from constants
)

_REPORT_UNKNOWN = text(
    f"""
    UPDATE schedules AS u SET broken = :why
     WHERE u.schedule_id IN (
           SELECT s.schedule_id FROM schedules s
            WHERE {_IS_LIVE} AND s.due_at < {_NOW} - :after * interval '1 second' AND NOT ({_IS_FOR_ME})
              AND s.broken IS DISTINCT FROM :why
            LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING u.name, u.workflow
    """  # noqa: S608 - built from constants
)

_OTHER_RULES = text(
    f"""
    SELECT s.schedule_id FROM schedules s
     WHERE {_IS_LIVE} AND s.zone_rules <> :rules AND s.trigger ->> 'kind' = 'cron' AND s.due_at > {_NOW}
       AND (CAST(:after AS uuid) IS NULL OR s.schedule_id > :after)
     ORDER BY s.schedule_id LIMIT :batch
    """  # noqa: S608 - built from constants
)
_MOVE_EARLIER = text(
    """
    UPDATE schedules SET next_slot = :next_slot, due_at = :due_at, zone_rules = :zone_rules
     WHERE schedule_id = :schedule_id AND due_at > :due_at
    """
)

_PASSING = {
    "25P03",  # the server ended our transaction, because this program stood still
    "25P04",
    "40001",
    "40P01",
    "55P03",
    "57014",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule that is due, or will be soon: ``due_in`` seconds are left."""

    schedule_id: UUID
    workflow: str
    due_in: float


@dataclass(frozen=True, slots=True)
class LiveSchedule:
    """The row of a schedule that may start something; :class:`orchestrator.db.tables.schedules.ScheduleRow` explains it."""

    schedule_id: UUID
    name: str
    workflow: str
    inputs: list[State]
    trigger: dict[str, Any]
    enabled: bool
    missed: str
    missed_limit: int
    overlap: str
    jitter: float
    note: str | None
    settled_through: datetime
    settled_wall: datetime | None
    due_at: datetime | None
    zone_rules: str
    queued_slot: datetime | None
    last_process_id: UUID | None
    skips: int
    broken: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """What became of a slot, or of several in a row, of which ``slot`` is the newest."""

    slot: datetime
    result: str
    reason: str | None = None
    slots: int = 1
    process_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a schedule stands; :class:`orchestrator.db.tables.schedules.ScheduleRow` explains the columns."""

    settled_through: datetime
    settled_wall: datetime | None
    queued_slot: datetime | None
    next_slot: datetime | None
    due_at: datetime | None
    zone_rules: str


# The time is read after the lock was granted: now() stands still within a transaction.
_COLUMNS = ", ".join(
    "COALESCE(CAST(:now AS timestamptz), clock_timestamp()) AS now" if one.name == "now" else f"s.{one.name}"
    for one in fields(LiveSchedule)
)
_READ = text(f"SELECT {_COLUMNS} FROM schedules s WHERE s.schedule_id = :schedule_id AND {_IS_LIVE}")  # noqa: S608
_LOCK = text(f"{_READ.text} FOR NO KEY UPDATE SKIP LOCKED")


async def find_due(
    session: AsyncSession,
    known: Collection[str],
    *,
    leave_out: Collection[UUID] = (),
    running: Collection[ProcessStatus] = (),
    ahead: float,
    batch: int,
    now: datetime | None = None,
) -> list[Candidate]:
    """Return schedules that are due, or will be within ``ahead`` seconds, the earliest first; without locking them.

    Args:
        known: the workflows that this program can start.
        leave_out: schedules that are in progress.
        running: the statuses of processes that keep a queued slot waiting.
        now: instead of the database's time.
    """
    rows = await session.execute(
        _FIND,
        {
            "known": list(known),
            "except": list(leave_out),
            "running": [one.value for one in running],
            "ahead": ahead,
            "batch": batch,
            "now": now,
        },
    )
    return [Candidate(row.schedule_id, row.workflow, row.due_in) for row in rows]


async def read_live(session: AsyncSession, schedule_id: UUID, now: datetime | None = None) -> LiveSchedule | None:
    """Return a schedule that is enabled; ``None`` when it is not any more."""
    return _build(await session.execute(_READ, {"schedule_id": schedule_id, "now": now}))


async def take_live(session: AsyncSession, schedule_id: UUID, now: datetime | None = None) -> LiveSchedule | None:
    """Lock a schedule until the transaction ends; ``None`` when another program has it, or it is not enabled any more.

    However long this program stands still from now on, the server soon ends the transaction.
    """
    await session.execute(_GUARD, {"lock": LOCK_TIMEOUT, "idle": IDLE_TIMEOUT, "statement": STATEMENT_TIMEOUT})
    return _build(await session.execute(_LOCK, {"schedule_id": schedule_id, "now": now}))


async def read_last_status(session: AsyncSession, process_id: UUID | None) -> ProcessStatus | None:
    """Return the status of a schedule's last process; ``None`` when there is none any more.

    In a statement of its own: one that waits for the schedule's lock would see the processes as they were before.
    """
    if process_id is None:
        return None
    status = await session.scalar(_LAST_STATUS, {"process_id": process_id})
    return None if status is None else ProcessStatus(status)


async def has_record(session: AsyncSession, schedule_id: UUID, slot: datetime) -> bool:
    """Return whether it is known what became of a slot, as after a clock that has stepped back while the schedule was changed."""
    return bool(await session.scalar(_HAS_RECORD, {"schedule_id": schedule_id, "slot": slot}))


async def record_slot(session: AsyncSession, schedule_id: UUID, record: SlotRecord) -> None:
    """Store what became of a slot."""
    await session.execute(_RECORD, {"schedule_id": schedule_id, **_values(record)})


async def change_queued(session: AsyncSession, schedule_id: UUID, record: SlotRecord) -> None:
    """Store what became of the slot that was queued."""
    await session.execute(_CHANGE_QUEUED, {"schedule_id": schedule_id, **_values(record)})


async def move(session: AsyncSession, schedule_id: UUID, position: Position) -> None:
    """Store where a schedule stands."""
    await session.execute(_MOVE, {"schedule_id": schedule_id, **_values(position)})


async def mark(session: AsyncSession, schedule_id: UUID, record: SlotRecord, *, skips: int, broken: str | None) -> None:
    """Store the last result of a schedule in its row."""
    parameters = {"schedule_id": schedule_id, "skips": skips, "broken": broken, **_values(record)}
    await session.execute(_MARK, parameters)


async def postpone(session: AsyncSession, schedule_id: UUID, seconds: float, why: str, now: datetime | None) -> None:
    """Leave a schedule alone for a while that cannot be handled, so that it stands in nobody's way."""
    await session.execute(_POSTPONE, {"schedule_id": schedule_id, "seconds": seconds, "why": why, "now": now})


async def report_unknown(
    session: AsyncSession, known: Collection[str], after: float, why: str, now: datetime | None
) -> list[tuple[str, str]]:
    """Mark the schedules that no program takes, ``after`` seconds after they were due; return their names and workflows."""
    rows = await session.execute(
        _REPORT_UNKNOWN, {"known": list(known), "except": [], "after": after, "why": why, "now": now}
    )
    return [(row.name, row.workflow) for row in rows]


async def list_with_other_rules(
    session: AsyncSession, rules: str, *, after: UUID | None, batch: int, now: datetime | None
) -> Sequence[UUID]:
    """Return schedules whose next slot was found by other rules of their time zone, in the order of their ids."""
    rows = await session.scalars(_OTHER_RULES, {"rules": rules, "after": after, "batch": batch, "now": now})
    return list(rows)


async def move_earlier(
    session: AsyncSession, schedule_id: UUID, next_slot: datetime, due_at: datetime, zone_rules: str
) -> None:
    """Store an earlier next slot."""
    parameters = {"schedule_id": schedule_id, "next_slot": next_slot, "due_at": due_at, "zone_rules": zone_rules}
    await session.execute(_MOVE_EARLIER, parameters)


def is_passing(error: BaseException) -> bool:
    """Return whether an error says that a transaction has lost against others or the clock: it is to be tried again."""
    found = error.orig if isinstance(error, DBAPIError) else error
    return getattr(found, "sqlstate", None) in _PASSING


def _build(result: Any) -> LiveSchedule | None:
    row: Mapping[str, Any] | None = result.mappings().one_or_none()
    return None if row is None else LiveSchedule(**row)


def _values(record: SlotRecord | Position) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in fields(record)}
