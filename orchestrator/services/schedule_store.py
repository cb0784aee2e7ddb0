"""Make a locked schedule what it is to be: its columns, its next slot, what becomes of a slot that waits, and the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.schedules import changes as rows
from orchestrator.db.schedules.changes import Change
from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.due_slots import find_standing
from orchestrator.engine.schedule import Origin, ScheduleDefinition, write_definition
from orchestrator.engine.triggers import Trigger
from orchestrator.engine.zones import find_rules

FIELDS: Final = ("workflow", "trigger", "inputs", "enabled", "missed", "missed_limit", "overlap", "jitter", "note")
"""The columns that define a schedule, beside its name."""


def columns_of(stored: StoredSchedule) -> dict[str, Any]:
    """Return the columns that define a schedule."""
    return {name: getattr(stored, name) for name in FIELDS}


def touch(stored: StoredSchedule, names: Iterable[str]) -> list[str]:
    """Return the fields that a person has changed about what code declares, with these."""
    return sorted({*stored.touched, *names}) if stored.origin == Origin.CODE.value else []


def stand(schedule_id: UUID, definition: ScheduleDefinition, after: datetime) -> dict[str, Any]:
    """Return the columns that say which slot is next, if it is the first after an instant."""
    standing = find_standing(schedule_id, definition.trigger, definition.jitter, after)
    return {
        "settled_through": after,
        "settled_wall": None,
        "next_slot": standing.slot if definition.enabled else None,
        "due_at": standing.due_at if definition.enabled else None,
        "zone_rules": find_rules(),
    }


async def apply(
    session: AsyncSession,
    stored: StoredSchedule,
    definition: ScheduleDefinition,
    now: datetime,
    change: Change,
    *,
    touched: Sequence[str],
    **others: Any,
) -> None:
    """Make a locked schedule what a definition says.

    Args:
        others: columns beside the definition.
    """
    if not definition.enabled and stored.enabled and "disabled_reason" not in others:
        others["disabled_reason"] = f"disabled by {change.author}"
    elif definition.enabled:
        others["disabled_reason"] = None
    before = columns_of(stored)
    values = {name: value for name, value in write_definition(definition).items() if before[name] != value}
    restarts = stored.deleted_at is not None or (definition.enabled and not stored.enabled)
    after = stored.settled_through
    if restarts:
        after = now
    elif "trigger" in values:
        after = await _keep_pending(session, stored, definition.trigger, now)
    if not definition.enabled or values.keys() & {"trigger", "overlap"}:
        await withdraw(session, stored, f"the schedule was {change.action} by {change.author}")
        others["queued_slot"] = None
    if restarts or values.keys() & {"enabled", "trigger", "jitter"}:
        others |= stand(stored.schedule_id, definition, max(after, stored.settled_through))
    if restarts or values.keys() & {"workflow", "trigger", "inputs"}:
        others |= {"broken": None, "skips": 0}
    if stored.deleted_at is not None:
        others |= {"deleted_at": None, "deleted_by": None}
    changes = {name: (before[name], value) for name, value in values.items()}
    await rows.update_schedule(
        session,
        stored.schedule_id,
        {**values, **others, "touched": list(touched)},
        replace(change, changes=changes),
    )


async def disable(
    session: AsyncSession, stored: StoredSchedule, why: str, change: Change, *, touched: Sequence[str], **others: Any
) -> None:
    """Stop a locked schedule; also one whose definition cannot be read any more."""
    await withdraw(session, stored, f"the schedule was {change.action} by {change.author}")
    values = {
        "enabled": False,
        "disabled_reason": why,
        "queued_slot": None,
        "next_slot": None,
        "due_at": None,
        "touched": list(touched),
    }
    await rows.update_schedule(session, stored.schedule_id, {**values, **others}, change)


async def _keep_pending(session: AsyncSession, stored: StoredSchedule, trigger: Trigger, now: datetime) -> datetime:
    """Return after which instant a schedule with another trigger stands.

    A slot that was due but had not started, because of its jitter or because it was late, starts if the new trigger has it,
    too. Otherwise the record says that it does not.
    """
    pending = stored.next_slot
    if pending is None or pending > now:
        return now
    just_before = pending - datetime.resolution
    if trigger.next_slot(just_before) == pending:
        return just_before
    await rows.withdraw_slot(session, stored.schedule_id, pending, "the schedule was changed before it had started")
    return now


async def withdraw(session: AsyncSession, stored: StoredSchedule, why: str) -> None:
    """Record that the slot which is queued, if one is, does not start."""
    if stored.queued_slot is not None:
        await rows.withdraw_slot(session, stored.schedule_id, stored.queued_slot, why)
