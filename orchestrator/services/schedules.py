"""Change schedules: the same use cases at every entry point. Each locks the row, so that a start is of the old or of the new one.

What a person changes about a schedule that code declares stays: from then on code decides the other fields only, until
:func:`reset_schedule`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lookup import find_schedule as find_by_id
from orchestrator.db.schedules import changes as rows
from orchestrator.db.schedules.changes import Change
from orchestrator.db.schedules.rows import StoredSchedule, find_by_name, lock_schedule, lock_schedules, read_schedule
from orchestrator.db.schedules.rows import read_status as read_process_status
from orchestrator.db.session import read_time
from orchestrator.engine.due_slots import may_start
from orchestrator.engine.schedule import (
    Missed,
    Origin,
    Overlap,
    ScheduleDefinition,
    read_definition,
    read_trigger,
    write_definition,
    write_trigger,
)
from orchestrator.engine.schedule_check import check_coming, check_jitter, check_name
from orchestrator.engine.state import store_and_read
from orchestrator.engine.triggers import Trigger
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError
from orchestrator.services.hooks import check_pages
from orchestrator.services.schedule_store import FIELDS, apply, columns_of, disable, stand, touch, withdraw
from orchestrator.services.start import StartOutcome, StartRequest, check_request, start
from orchestrator.services.texts import check_text
from orchestrator.settings import Limits
from orchestrator.text import MAX_NOTE, MAX_REASON
from orchestrator.types import ProcessStatus, State


class ScheduleChanges(TypedDict, total=False):
    """What is changed about a schedule; the rest stays. Its name and its workflow are what it is, so they cannot be changed."""

    trigger: Trigger
    inputs: Sequence[State]
    missed: Missed
    missed_limit: int
    overlap: Overlap
    jitter: timedelta
    note: str | None


async def find_schedule(session: AsyncSession, written: str, *, removed: bool = False) -> UUID:
    """Return the schedule of this name, or the only one whose id begins with these characters.

    Args:
        removed: whether a name may also be that of one that was removed.

    Raises:
        NotFoundError: there is none.
        ConflictError: several ids begin with these characters.
    """
    found = await find_by_name(session, written, removed=removed)
    if found is not None:
        return found
    try:
        return await find_by_id(session, written)
    except (InvalidInputError, NotFoundError):
        raise NotFoundError(
            f"there is no schedule {written!r:.200}: 'orchestrator schedules list' shows what there is"
        ) from None


async def add_schedule(
    session: AsyncSession, definition: ScheduleDefinition, user: str, limits: Limits
) -> StoredSchedule:
    """Make a schedule. Its first slot is after this moment, whenever it begins: nothing is made up for.

    Raises:
        InvalidInputError, FormIncompleteError: a field cannot be used; or the pages do not fit the workflow's form.
        NotFoundError: the workflow is not registered, in code or in the database; the text says which.
        ForbiddenError: the user may not start it.
        DefinitionError: its module or its form is broken.
        ConflictError: there is a schedule of this name.
    """
    check_name(definition.name)
    check_jitter(definition)
    definition = replace(definition, note=_check_note(definition.note), inputs=_pages(definition.inputs))
    check_coming(definition.trigger, await read_time(session))
    await check_request(session, StartRequest(definition.workflow, definition.inputs, user), limits)
    now = await read_time(session)
    schedule_id = uuid4()
    values = {
        "name": definition.name,
        "origin": Origin.PERSON.value,
        "disabled_reason": None if definition.enabled else f"made so by {user}",
        **write_definition(definition),
        **stand(schedule_id, definition, now),
    }
    if not await rows.insert_schedule(session, schedule_id, values, Change("added", user)):
        schedule_id = await _revive(session, definition, values, user, now)
    return _require(await read_schedule(session, schedule_id))


def count_edition(stored: StoredSchedule) -> int:
    """Return a number that is another one after every change of a schedule, and the same after its runs."""
    return (stored.changed_at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


async def edit_schedule(
    session: AsyncSession,
    schedule_id: UUID,
    changes: ScheduleChanges,
    user: str,
    limits: Limits,
    *,
    seen: int | None = None,
) -> StoredSchedule:
    """Change some fields of a schedule. With another trigger the next slot is after this moment; otherwise it stays.

    Args:
        seen: the edition of which the user has asked for the changes, of :func:`count_edition`; ``None`` for whichever it is.

    Raises:
        as :func:`add_schedule`; also NotFoundError: there is no such schedule. ConflictError: it is another edition now.
    """
    written = _write_changes(changes)
    if "inputs" in changes:
        # User code runs before the row is locked.
        known = _require(await read_schedule(session, schedule_id))
        await check_request(session, StartRequest(known.workflow, written["inputs"], user), limits)
    stored = await _lock(session, schedule_id)
    if seen is not None and seen != count_edition(stored):
        raise ConflictError(
            f"the schedule {stored.name!r} was changed by {stored.changed_by!r} after this form had been opened: open the form"
            " again, it begins with what the schedule is now"
        )
    now = await read_time(session)
    values = {name: value for name, value in written.items() if getattr(stored, name) != value}
    definition = read_definition(stored.name, columns_of(stored) | values)
    if "trigger" in values or "jitter" in values:
        check_jitter(definition)
    if "trigger" in values:
        check_coming(definition.trigger, now)
    if values:
        await apply(session, stored, definition, now, Change("edited", user), touched=touch(stored, values))
    return _require(await read_schedule(session, schedule_id))


async def pause_schedule(
    session: AsyncSession, schedule_id: UUID, user: str, reason: str | None = None
) -> StoredSchedule:
    """Stop a schedule from starting anything; a slot that is queued is withdrawn. Repeating it changes nothing.

    Raises:
        NotFoundError: there is no such schedule.
        InvalidInputError: the reason is too long, or cannot be stored.
    """
    why = check_text(reason, "the reason", MAX_REASON) if reason else ""
    stored = await _lock(session, schedule_id)
    if stored.enabled:
        text = f"paused by {user}: {why}" if why else f"paused by {user}"
        await disable(session, stored, text, Change("paused", user, why or None), touched=touch(stored, ["enabled"]))
    return _require(await read_schedule(session, schedule_id))


async def resume_schedule(session: AsyncSession, schedule_id: UUID, user: str) -> StoredSchedule:
    """Let a schedule start processes again, from its first slot after this moment on. Repeating it changes nothing.

    Raises:
        NotFoundError: there is no such schedule.
        InvalidInputError: it has no slot any more; the text names the field.
    """
    stored = await _lock(session, schedule_id)
    if not stored.enabled:
        now = await read_time(session)
        definition = read_definition(stored.name, columns_of(stored) | {"enabled": True})
        check_coming(definition.trigger, now)
        await apply(session, stored, definition, now, Change("resumed", user), touched=touch(stored, ["enabled"]))
    return _require(await read_schedule(session, schedule_id))


async def remove_schedule(session: AsyncSession, schedule_id: UUID, user: str) -> None:
    """Remove a schedule. Its row stays, with the record of its slots, and code that declares it does not bring it back.

    Raises:
        NotFoundError: there is no such schedule.
    """
    stored = await _lock(session, schedule_id)
    now = await read_time(session)
    await withdraw(session, stored, f"the schedule was removed by {user}")
    values = {"deleted_at": now, "deleted_by": user, "queued_slot": None, "next_slot": None, "due_at": None}
    await rows.update_schedule(session, schedule_id, values, Change("removed", user))


async def reset_schedule(session: AsyncSession, schedule_id: UUID, user: str) -> StoredSchedule:
    """Make a schedule what the code declares again: in all fields, and also when a person has removed it.

    Raises:
        NotFoundError: there is no such schedule.
        ConflictError: no code declares it.
    """
    stored = await lock_schedule(session, schedule_id)
    if stored is None:
        raise NotFoundError(f"there is no schedule {schedule_id}")
    if stored.declared is None:
        raise ConflictError(
            f"the schedule {stored.name!r} is not declared by the code, so there is nothing to go back to"
        )
    definition = read_definition(stored.name, stored.declared)
    await apply(session, stored, definition, await read_time(session), Change("reset", user), touched=[])
    return _require(await read_schedule(session, schedule_id))


async def run_schedule(
    session: AsyncSession,
    schedule_id: UUID,
    user: str,
    limits: Limits,
    key: str | None = None,
    sender: str | None = None,
) -> StartOutcome:
    """Start the workflow of a schedule now, also while it is paused. Its slots stay as they are.

    Args:
        key, sender: make repeating it harmless, as with a start.

    Raises:
        NotFoundError: there is no such schedule.
        ConflictError: an earlier process of it is still running, and the schedule does not allow two.
        what :func:`orchestrator.services.start.start` raises.
    """
    known = _require(await read_schedule(session, schedule_id))
    outcome = await start(session, StartRequest(known.workflow, tuple(known.inputs), user, key, sender), limits)
    if not outcome.created:
        return outcome
    # The process is not committed yet: the refusal takes it back.
    stored = await _lock(session, schedule_id)
    if stored.inputs != known.inputs:
        raise ConflictError(f"the schedule {stored.name!r} was changed at this moment: try again")
    await _require_no_overlap(session, stored)
    now = await read_time(session)
    await rows.record_start(session, schedule_id, now, outcome.process_id, f"run by {user}")
    return outcome


async def _revive(
    session: AsyncSession, definition: ScheduleDefinition, values: Mapping[str, Any], user: str, now: datetime
) -> UUID:
    """Make a schedule anew that was removed; the record of its slots goes on."""
    stored = (await lock_schedules(session, [definition.name])).get(definition.name)
    if stored is None or stored.deleted_at is None:
        raise ConflictError(
            f"there is a schedule {definition.name!r} already: change it, or give this one another name"
        )
    is_declared = stored.declared is not None
    await apply(
        session,
        stored,
        definition,
        now,
        Change("added", user),
        touched=[name for name in FIELDS if name != "workflow"] if is_declared else [],
        origin=(Origin.CODE if is_declared else Origin.PERSON).value,
        disabled_reason=values["disabled_reason"],
    )
    return stored.schedule_id


async def _require_no_overlap(session: AsyncSession, stored: StoredSchedule) -> None:
    if stored.last_process_id is None:
        return
    status = await read_process_status(session, stored.last_process_id)
    if not may_start(Overlap(stored.overlap), None if status is None else ProcessStatus(status)):
        raise ConflictError(
            f"process {stored.last_process_id} of the schedule {stored.name!r} is {status}, and the schedule does not let two"
            " run at once: wait for its end, or start the workflow by itself",
            {"process_id": str(stored.last_process_id)},
        )


async def _lock(session: AsyncSession, schedule_id: UUID) -> StoredSchedule:
    return _require(await lock_schedule(session, schedule_id))


def _require(found: StoredSchedule | None) -> StoredSchedule:
    if found is None:
        raise NotFoundError("there is no such schedule: 'orchestrator schedules list' shows what there is")
    if found.deleted_at is not None:
        raise NotFoundError(f"the schedule {found.name!r} was removed by {found.deleted_by!r}")
    return found


def _write_changes(changes: ScheduleChanges) -> dict[str, Any]:
    written: dict[str, Any] = dict(changes)
    if "trigger" in changes:
        written["trigger"] = write_trigger(changes["trigger"])
        read_trigger(written["trigger"])
    if "inputs" in changes:
        written["inputs"] = list(_pages(changes["inputs"]))
    if "missed" in changes:
        written["missed"] = changes["missed"].value
    if "overlap" in changes:
        written["overlap"] = changes["overlap"].value
    if "jitter" in changes:
        written["jitter"] = changes["jitter"].total_seconds()
    if "note" in changes:
        written["note"] = _check_note(changes["note"])
    return written


def _check_note(note: str | None) -> str | None:
    return check_text(note, "the note", MAX_NOTE) or None if note else None


def _pages(inputs: Sequence[State]) -> tuple[State, ...]:
    """Return pages as the database gives them back, so that they compare equal."""
    check_pages(inputs)
    return tuple(dict(page) for page in map(store_and_read, inputs) if isinstance(page, dict))
