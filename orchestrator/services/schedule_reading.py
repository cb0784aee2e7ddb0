"""Read schedules: what they are, whether they can start anything, when they are due, and what became of their slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.schedules import rows
from orchestrator.db.schedules.rows import StoredChange, StoredSchedule, StoredSlot, Wanted
from orchestrator.db.session import read_time
from orchestrator.engine.schedule import read_trigger
from orchestrator.engine.slot_preview import SlotPreview, preview_slots
from orchestrator.engine.trigger_text import write_words
from orchestrator.engine.triggers import CronTrigger
from orchestrator.engine.zones import find_zone
from orchestrator.errors import InvalidInputError, NotFoundError

COMING, RECENT = 5, 20
"""Slots to come, and slots and changes of the past, that are shown unless more are asked for."""


class ScheduleState(StrEnum):
    """Whether a schedule starts anything."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    BROKEN = "broken"
    """It cannot: its workflow was removed, or the last start was refused for what it is."""
    OVER = "over"
    """It has no slot any more."""
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class ListedSchedule:
    """A schedule in a list.

    Args:
        why: why it is broken or disabled.
    """

    stored: StoredSchedule
    state: ScheduleState
    why: str | None


@dataclass(frozen=True, slots=True)
class ShownSchedule:
    """A schedule with its slots.

    Args:
        coming: empty unless it is enabled.
        slots: what became of the newest ones, the newest first.
        changes: what was done to it, the newest first.
    """

    listed: ListedSchedule
    coming: Sequence[SlotPreview]
    slots: Sequence[StoredSlot]
    changes: Sequence[StoredChange]


async def list_schedules(
    session: AsyncSession, wanted: Wanted, *, first: int = 0, count: int | None = None
) -> list[ListedSchedule]:
    """Return schedules that were not removed, by name."""
    found = await rows.list_schedules(session, wanted, first=first, count=count)
    return [describe(one) for one in found]


async def count_schedules(session: AsyncSession, wanted: Wanted) -> int:
    """Return how many schedules there are."""
    return await rows.count_schedules(session, wanted)


async def show_schedule(
    session: AsyncSession, schedule_id: UUID, *, coming: int = COMING, recent: int = RECENT
) -> ShownSchedule:
    """Return a schedule with its slots, also one that was removed.

    Raises:
        NotFoundError: there is no such schedule.
    """
    stored = await rows.read_schedule(session, schedule_id)
    if stored is None:
        raise NotFoundError(f"there is no schedule {schedule_id}")
    listed = describe(stored)
    return ShownSchedule(
        listed,
        await _preview(session, listed, coming),
        await rows.list_slots(session, schedule_id, recent),
        await rows.list_changes(session, schedule_id, recent),
    )


def describe(stored: StoredSchedule) -> ListedSchedule:
    """Return a schedule with what people want to know first: whether it starts anything, and why not."""
    if stored.deleted_at is not None:
        return ListedSchedule(stored, ScheduleState.REMOVED, f"removed by {stored.deleted_by}")
    if not stored.enabled:
        return ListedSchedule(stored, ScheduleState.DISABLED, stored.disabled_reason)
    broken = _find_break(stored)
    if broken is not None:
        return ListedSchedule(stored, ScheduleState.BROKEN, broken)
    return ListedSchedule(stored, ScheduleState.OVER if stored.next_slot is None else ScheduleState.ENABLED, None)


def describe_trigger(stored: StoredSchedule) -> str:
    """Return when a schedule is due, as the options of the command line say it; a question mark when nobody can read it."""
    try:
        return write_words(read_trigger(stored.trigger))
    except InvalidInputError:
        return "?"


def _find_break(stored: StoredSchedule) -> str | None:
    if stored.workflow_id is None:
        return f"the workflow {stored.workflow!r} is not registered in the database: it was removed, or not yet added"
    try:
        read_trigger(stored.trigger)
    except InvalidInputError as error:
        return str(error)
    return stored.broken


async def _preview(session: AsyncSession, listed: ListedSchedule, count: int) -> list[SlotPreview]:
    stored = listed.stored
    if not stored.enabled or stored.deleted_at is not None:
        return []
    try:
        trigger = read_trigger(stored.trigger)
    except InvalidInputError:
        return []
    zone = trigger.zone if isinstance(trigger, CronTrigger) else find_zone("UTC")
    return preview_slots(trigger, zone, max(stored.settled_through, await read_time(session)), count)
