"""Start what schedules are due for. A slot's process, its record and the schedule's cursor are one commit.

First :func:`prepare_firing`, in a transaction that is rolled back: it runs the user code of the start, and locks nothing. Then
:func:`fire`, in another one: it takes the schedule's row, decides again, and stores. If what it finds there is not what was
prepared, nothing is stored, and the next round prepares again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import MAX_USER
from orchestrator.db.schedules import firing as rows
from orchestrator.db.schedules.firing import LiveSchedule, Position, SlotRecord
from orchestrator.engine.due_slots import MissedSlots, find_standing
from orchestrator.engine.firing import Action, Cursor, Firing, carry_over, decide_firing, read_wall
from orchestrator.engine.schedule import Overlap, ScheduleDefinition, SlotResult, read_definition
from orchestrator.engine.triggers import CronTrigger
from orchestrator.engine.zones import find_rules
from orchestrator.errors import (
    ConflictError,
    DefinitionError,
    OrchestratorError,
    PlanMismatchError,
    RequestError,
)
from orchestrator.messages import Advanced
from orchestrator.services.start import (
    PreparedStart,
    StartOutcome,
    StartRequest,
    prepare_start,
    recheck_start,
    store_start,
)
from orchestrator.settings import Limits
from orchestrator.text import sanitise, shorten

logger = structlog.get_logger(__name__)

UNREADABLE_FOR: Final = 300.0
"""Seconds after which a schedule is looked at again that cannot be read."""

OTHERS_FIRST: Final = timedelta(seconds=60)
"""For so long a schedule is left to programs by whose rules of the time zone it is due, if by those of this one it is not."""

SKIPS_TO_REPORT: Final = 3
"""So many slots in a row are skipped without a warning in the log."""


@dataclass(frozen=True, slots=True)
class PreparedFiring:
    """A slot that is to be started, with what user code says about it: the start, or why not.

    Args:
        slot, workflow, inputs: what was prepared; if they are others when the schedule is taken, this is worth nothing.
    """

    slot: datetime | None
    workflow: str
    inputs: list[dict[str, object]]
    start: PreparedStart | RequestError | DefinitionError | None


@dataclass(frozen=True, slots=True)
class Fired:
    """What was done about a schedule.

    Args:
        again: whether more is due at once.
        left: whether it is left to other programs for a while.
        message: what must be published, once this is committed.
        records: what became of which slots.
    """

    again: bool = False
    left: bool = False
    message: Advanced | None = None
    records: tuple[SlotRecord, ...] = ()


NOTHING: Final = Fired()


def author_of(schedule: str) -> str:
    """Return the user on whose behalf a schedule starts processes: the one that authorization callbacks see."""
    return f"schedule:{schedule}"[:MAX_USER]


async def prepare_firing(
    session: AsyncSession,
    schedule_id: UUID,
    limits: Limits,
    now: datetime | None = None,
    *,
    refusal: DefinitionError | None = None,
) -> PreparedFiring | None:
    """Decide what a schedule does now, and run the user code that a start needs. Roll the transaction back afterwards.

    Args:
        refusal: why a start is refused, without running any.

    Returns:
        ``None`` when it is not enabled any more.

    Raises:
        PlanMismatchError, or an error with ``lacks_code``: another program may have the code for it.
    """
    found = await rows.read_live(session, schedule_id, now)
    if found is None:
        return None
    schedule = _read(found)
    if isinstance(schedule, str):
        return PreparedFiring(None, found.workflow, found.inputs, None)
    firing = await _decide(session, found, schedule)
    start: PreparedStart | RequestError | DefinitionError | None = refusal
    if firing.starts and refusal is None:
        request = StartRequest(found.workflow, schedule.inputs, author_of(found.name))
        try:
            prepared = await prepare_start(session, request, limits)
        except (RequestError, DefinitionError) as error:
            if error.lacks_code or isinstance(error, PlanMismatchError):
                raise
            start = error
        else:
            assert isinstance(prepared, PreparedStart)  # noqa: S101 - the request has no key
            start = prepared
    return PreparedFiring(firing.slot if firing.starts else None, found.workflow, found.inputs, start)


async def fire(
    session: AsyncSession, schedule_id: UUID, prepared: PreparedFiring, limits: Limits, now: datetime | None = None
) -> Fired:
    """Take a schedule and store what becomes of one of its slots, if nothing has changed since this was prepared.

    No user code runs and no message is sent, because the row is locked until the transaction ends.
    """
    found = await rows.take_live(session, schedule_id, now)
    if found is None:
        return NOTHING
    schedule = _read(found)
    if isinstance(schedule, str):
        logger.error("schedule broken", schedule=found.name, reason=schedule)
        await rows.postpone(session, schedule_id, UNREADABLE_FOR, schedule, now)
        return Fired(left=True)
    firing = await _decide(session, found, schedule)
    if firing == Firing():
        return await _stand(session, found, schedule)
    is_same = (firing.slot, found.workflow, found.inputs) == (prepared.slot, prepared.workflow, prepared.inputs)
    if firing.starts and not is_same:
        return Fired(again=True)
    return await _store(session, found, schedule, firing, prepared.start, limits)


async def move_earlier(session: AsyncSession, schedule_id: UUID, now: datetime | None = None) -> bool:
    """Make a schedule due earlier if it is so by this program's rules of its time zone; return whether it is.

    It never becomes due later like that: a program by whose rules it is due would find it late.
    """
    found = await rows.take_live(session, schedule_id, now)
    schedule = None if found is None else _read(found)
    if found is None or not isinstance(schedule, ScheduleDefinition) or found.due_at is None:
        return False
    standing = find_standing(schedule_id, schedule.trigger, schedule.jitter, _cursor(found, schedule).settled)
    if standing.slot is None or standing.due_at is None or standing.due_at >= found.due_at:
        return False
    await rows.move_earlier(session, schedule_id, standing.slot, standing.due_at, find_rules())
    return True


def _read(found: LiveSchedule) -> ScheduleDefinition | str:
    """Return the definition, or why it is none."""
    written = {name: getattr(found, name) for name in LiveSchedule.__dataclass_fields__}
    try:
        return read_definition(found.name, written)
    except OrchestratorError as error:
        return sanitise(str(error))
    except Exception as error:
        # Whatever stands in the row, it concerns this schedule only.
        return sanitise(f"it cannot be read: {type(error).__name__}: {error}")


async def _decide(session: AsyncSession, found: LiveSchedule, schedule: ScheduleDefinition) -> Firing:
    last = None
    if schedule.overlap is not Overlap.ALLOW or found.queued_slot is not None:
        last = await rows.read_last_status(session, found.last_process_id)
    return decide_firing(found.schedule_id, schedule, _cursor(found, schedule), last, found.now)


def _cursor(found: LiveSchedule, schedule: ScheduleDefinition) -> Cursor:
    settled = found.settled_through
    if found.zone_rules != find_rules():
        settled = carry_over(schedule.trigger, settled, found.settled_wall)
    return Cursor(settled, found.queued_slot)


async def _stand(session: AsyncSession, found: LiveSchedule, schedule: ScheduleDefinition) -> Fired:
    """Correct when a schedule is due that was found and is not."""
    if found.due_at is None or found.due_at > found.now:
        return NOTHING
    follows_wall = isinstance(schedule.trigger, CronTrigger)
    if follows_wall and found.zone_rules != find_rules() and found.now - found.due_at < OTHERS_FIRST:
        return Fired(left=True)
    await _move(session, found, schedule, _cursor(found, schedule))
    return NOTHING


async def _store(
    session: AsyncSession,
    found: LiveSchedule,
    schedule: ScheduleDefinition,
    firing: Firing,
    start: PreparedStart | RequestError | DefinitionError | None,
    limits: Limits,
) -> Fired:
    cursor = _cursor(found, schedule)
    records: list[SlotRecord] = []
    message, skips, broken = None, found.skips, None
    if firing.missed is not None:
        record = _describe_missed(firing.missed, schedule)
        records.append(record)
        await rows.record_slot(session, found.schedule_id, record)
        logger.warning("slots missed", schedule=found.name, slots=record.slots, reason=record.reason)
    slot = firing.slot
    if slot is not None and not await _is_settled(session, found, firing, slot):
        record = SlotRecord(slot, SlotResult.STARTED.value)
        if firing.action is Action.SKIP:
            skips += 1
            record = SlotRecord(slot, SlotResult.SKIPPED.value, _explain_overlap(found))
            report = logger.warning if skips >= SKIPS_TO_REPORT else logger.info
            report("slot skipped", schedule=found.name, slot=slot.isoformat(), reason=record.reason, in_a_row=skips)
        elif firing.action is Action.QUEUE:
            record = SlotRecord(slot, SlotResult.QUEUED.value, _explain_overlap(found))
            await _replace_queued(session, found, slot)
        else:
            outcome = await _start(session, found, slot, start, limits)
            if isinstance(outcome, StartOutcome):
                skips, broken, message = 0, None, outcome.message
                record = replace(record, process_id=outcome.process_id)
                logger.info("workflow started", **_fields(found, slot), process_id=str(outcome.process_id))
            else:
                broken = None if isinstance(outcome, ConflictError) else _reason(outcome)
                record = SlotRecord(slot, SlotResult.REFUSED.value, _reason(outcome))
                logger.warning("slot refused", **_fields(found, slot), reason=record.reason)
        store = rows.change_queued if firing.action is Action.START_QUEUED else rows.record_slot
        await store(session, found.schedule_id, record)
        records.append(record)
    settled = await _move(session, found, schedule, firing.settle(cursor))
    if records:
        await rows.mark(session, found.schedule_id, records[-1], skips=skips, broken=broken)
    is_due = settled.due_at is not None and settled.due_at <= found.now
    return Fired(is_due, message=message, records=tuple(records))


async def _is_settled(session: AsyncSession, found: LiveSchedule, firing: Firing, slot: datetime) -> bool:
    return firing.action is not Action.START_QUEUED and await rows.has_record(session, found.schedule_id, slot)


async def _start(
    session: AsyncSession,
    found: LiveSchedule,
    slot: datetime,
    start: PreparedStart | RequestError | DefinitionError | None,
    limits: Limits,
) -> StartOutcome | RequestError | DefinitionError:
    if not isinstance(start, PreparedStart):
        assert start is not None, "a start was prepared"  # noqa: S101 - a programming error, not a user's
        return start
    try:
        checked = await recheck_start(session, start)
    except RequestError as error:
        return error
    note = f"for the slot {slot.isoformat()} of the schedule {found.name!r}"
    return await store_start(session, checked, limits, note=note)


async def _replace_queued(session: AsyncSession, found: LiveSchedule, newer: datetime) -> None:
    if found.queued_slot is not None:
        reason = f"the slot {newer.isoformat()} waits instead: only the newest one does"
        await rows.change_queued(
            session, found.schedule_id, SlotRecord(found.queued_slot, SlotResult.SKIPPED.value, reason)
        )


async def _move(session: AsyncSession, found: LiveSchedule, schedule: ScheduleDefinition, cursor: Cursor) -> Position:
    standing = find_standing(found.schedule_id, schedule.trigger, schedule.jitter, cursor.settled)
    position = Position(
        cursor.settled,
        read_wall(schedule.trigger, cursor.settled),
        cursor.queued,
        standing.slot,
        standing.due_at,
        find_rules(),
    )
    await rows.move(session, found.schedule_id, position)
    return position


def _describe_missed(missed: MissedSlots, schedule: ScheduleDefinition) -> SlotRecord:
    count = str(missed.count) if missed.is_exact else f"more than {missed.count}"
    several = f"{count} slots from {missed.first.isoformat()} to" if missed.count > 1 else "the slot"
    reason = (
        f"{several} {missed.last.isoformat()}: no coordinator started them in time, and this schedule's policy for missed"
        f" slots is {schedule.missed.value!r}"
    )
    return SlotRecord(missed.last, SlotResult.MISSED.value, reason, missed.count)


def _explain_overlap(found: LiveSchedule) -> str:
    return f"process {found.last_process_id}, which this schedule has started before, is still running"


def _reason(error: Exception) -> str:
    return shorten(sanitise(str(error)))


def _fields(found: LiveSchedule, slot: datetime) -> dict[str, str]:
    return {"schedule": found.name, "workflow": found.workflow, "slot": slot.isoformat()}
