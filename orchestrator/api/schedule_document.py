"""A schedule as JSON: its own fields as a request writes them, when it is due, and what became of its slots."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from orchestrator.api.schedule_bodies import Kind
from orchestrator.engine.schedule import Missed, Origin, Overlap, SlotResult
from orchestrator.engine.trigger_input import write_fields
from orchestrator.services.schedule_reading import ListedSchedule, ScheduleState, ShownSchedule


class ScheduledSlot(BaseModel):
    """A slot to come; `remarks` say what clock changes do to it."""

    at: datetime
    local: str
    remarks: list[str]


class SettledSlot(BaseModel):
    """What became of a slot, or of `slots` in a row: then `slot` is the newest."""

    slot: datetime
    result: SlotResult
    reason: str | None
    slots: int
    process_id: UUID | None
    at: datetime


class LastResult(BaseModel):
    """What became of the newest slot. The process may have been deleted since."""

    slot: datetime
    result: SlotResult
    reason: str | None
    process_id: UUID | None
    at: datetime | None


class AppliedChange(BaseModel):
    """What was done to a schedule; `changes` has for each field what it was and what it became."""

    action: str
    author: str
    at: datetime
    reason: str | None
    changes: dict[str, list[Any]]


class ScheduleItem(BaseModel):
    """A schedule.

    `state` says whether it starts anything, `why` the reason why it does not, `broken` that reason for one that cannot.
    `next_run_time` is its next slot, to which the jitter is added: `due_at`. `touched` are the fields that a person has changed
    about what code declares.
    """

    id: UUID
    name: str
    workflow_id: UUID | None
    workflow_name: str
    trigger: Kind
    trigger_kwargs: dict[str, Any]
    zone: str
    user_inputs: list[dict[str, Any]]
    enabled: bool
    missed: Missed
    missed_limit: int
    overlap: Overlap
    jitter: float
    note: str | None
    state: ScheduleState
    why: str | None
    broken: str | None
    origin: Origin
    touched: list[str]
    next_run_time: datetime | None
    due_at: datetime | None
    queued_slot: datetime | None
    skips: int
    last: LastResult | None
    created_by: str
    created_at: datetime
    changed_by: str
    changed_at: datetime


class ScheduleDocument(ScheduleItem):
    """A schedule with its next slots, what became of the newest ones, and what was done to it."""

    next: list[ScheduledSlot]
    slots: list[SettledSlot]
    changes: list[AppliedChange]


def write_item(listed: ListedSchedule) -> dict[str, Any]:
    """Return a schedule as it stands in a list."""
    stored = listed.stored
    trigger, kwargs, zone = write_fields(stored.trigger)
    last = {
        "slot": stored.last_slot,
        "result": stored.last_result,
        "reason": stored.last_reason,
        "process_id": stored.last_process_id,
        "at": stored.last_at,
    }
    return {
        "id": stored.schedule_id,
        "name": stored.name,
        "workflow_id": stored.workflow_id,
        "workflow_name": stored.workflow,
        "trigger": trigger,
        "trigger_kwargs": kwargs,
        "zone": zone,
        "user_inputs": stored.inputs,
        "enabled": stored.enabled,
        "missed": stored.missed,
        "missed_limit": stored.missed_limit,
        "overlap": stored.overlap,
        "jitter": stored.jitter,
        "note": stored.note,
        "state": listed.state,
        "why": listed.why,
        "broken": listed.why if listed.state is ScheduleState.BROKEN else None,
        "origin": stored.origin,
        "touched": stored.touched,
        "next_run_time": stored.next_slot,
        "due_at": stored.due_at,
        "queued_slot": stored.queued_slot,
        "skips": stored.skips,
        "last": None if stored.last_result is None else last,
        "created_by": stored.created_by,
        "created_at": stored.created_at,
        "changed_by": stored.changed_by,
        "changed_at": stored.changed_at,
    }


def write_document(shown: ShownSchedule) -> dict[str, Any]:
    """Return a schedule with its slots and its record."""
    return {
        **write_item(shown.listed),
        "next": [{"at": one.at, "local": one.local.isoformat(), "remarks": one.remarks} for one in shown.coming],
        "slots": shown.slots,
        "changes": shown.changes,
    }
