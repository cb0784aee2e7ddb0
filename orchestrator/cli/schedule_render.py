"""Show schedules to people, and as JSON documents."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from orchestrator.cli.output import clean
from orchestrator.cli.render import when
from orchestrator.services.schedule_reading import ListedSchedule, ScheduleState

_STYLES = {
    ScheduleState.ENABLED: "green",
    ScheduleState.DISABLED: "yellow",
    ScheduleState.BROKEN: "red",
    ScheduleState.OVER: "dim",
    ScheduleState.REMOVED: "dim",
}


def state_of(listed: ListedSchedule) -> Text:
    """Return whether a schedule starts anything, in colour."""
    return Text(listed.state.value, style=_STYLES[listed.state])


def when_next(listed: ListedSchedule) -> str:
    """Return when a schedule starts next, or why it does not."""
    if listed.state is ScheduleState.ENABLED and listed.stored.due_at is not None:
        return f"next at {when(listed.stored.due_at)}"
    if listed.state is ScheduleState.OVER:
        return "it has no slot any more"
    return clean(f"{listed.state.value}: {listed.why}" if listed.why else listed.state.value)


def schedule_document(listed: ListedSchedule) -> dict[str, Any]:
    """Return a schedule as JSON."""
    stored = listed.stored
    fields = (
        "schedule_id name workflow origin trigger inputs enabled missed missed_limit overlap jitter note touched"
        " next_slot due_at queued_slot skips created_by created_at changed_by changed_at deleted_by deleted_at"
    )
    return {
        **{name: getattr(stored, name) for name in fields.split()},
        "state": listed.state.value,
        "why": listed.why,
        "is_declared": stored.declared is not None,
        "last": None
        if stored.last_at is None
        else {
            "slot": stored.last_slot,
            "result": stored.last_result,
            "reason": stored.last_reason,
            "process_id": stored.last_process_id,
            "at": stored.last_at,
        },
    }
