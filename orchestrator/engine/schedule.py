"""What a schedule is: which workflow to start with which input, when, and what to do about slots that cannot start on time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from orchestrator.engine.trigger_input import read_time
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.engine.zones import find_zone, invalid
from orchestrator.types import JSON, State

MISSED_LIMIT: Final = 10
"""How many missed slots :attr:`Missed.ALL` starts unless a schedule says otherwise: the newest ones."""

MOST_MADE_UP: Final = 1000
"""The highest value of a schedule's own limit."""

LONGEST_JITTER: Final = 366 * 86_400.0
"""The most seconds of jitter. A start always comes before the next slot."""


class Origin(StrEnum):
    """Who owns a schedule: the code that declares it, or people."""

    CODE = "code"
    PERSON = "person"


class Missed(StrEnum):
    """What happens to slots at which no coordinator ran."""

    SKIP = "skip"
    ONCE = "once"
    """The newest one is started."""
    ALL = "all"
    """The newest ones are started, up to a limit."""


class Overlap(StrEnum):
    """What happens to a slot while the process of an earlier one is still running."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    """One slot, the newest, waits until that process has ended."""


class SlotResult(StrEnum):
    """What happened to a slot."""

    STARTED = "started"
    SKIPPED = "skipped"
    """An earlier process was still running."""
    MISSED = "missed"
    """No coordinator ran at that time, and the schedule does not make up for it."""
    REFUSED = "refused"
    """The start was refused: the reason says why."""
    QUEUED = "queued"
    """It waits for the process of an earlier slot."""
    WITHDRAWN = "withdrawn"
    """It had waited when the schedule was paused, changed or removed."""


@dataclass(frozen=True, slots=True)
class ScheduleDefinition:
    """The definition of a schedule.

    Args:
        name: unique.
        inputs: the pages of the workflow's form, in order.
        missed_limit: for :attr:`Missed.ALL`.
        jitter: the longest delay of a start. The actual delay follows from the schedule and the slot, and a start always
            comes before the next slot, however long the jitter is.

    Raises:
        InvalidInputError: a limit is out of range, or two policies contradict each other; the text names the field.
    """

    name: str
    workflow: str
    trigger: Trigger
    inputs: tuple[State, ...] = ()
    enabled: bool = True
    missed: Missed = Missed.ONCE
    missed_limit: int = MISSED_LIMIT
    overlap: Overlap = Overlap.SKIP
    jitter: timedelta = timedelta(0)
    note: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.missed_limit <= MOST_MADE_UP:
            raise invalid("missed_limit", self.missed_limit, f"must be from 1 to {MOST_MADE_UP}")
        if self.jitter < timedelta(0):
            raise invalid("jitter", str(self.jitter), "must not be negative")
        if self.missed is Missed.ALL and self.overlap is not Overlap.ALLOW:
            raise invalid(
                "missed",
                self.missed.value,
                f"starts several at once, and overlap {self.overlap.value!r} would leave out all but one: use overlap 'allow'",
            )


def write_definition(definition: ScheduleDefinition) -> dict[str, JSON]:
    """Return a definition without its name as the database keeps it, by the names of the columns."""
    return {
        "workflow": definition.workflow,
        "trigger": write_trigger(definition.trigger),
        "inputs": list(definition.inputs),
        "enabled": definition.enabled,
        "missed": definition.missed.value,
        "missed_limit": definition.missed_limit,
        "overlap": definition.overlap.value,
        "jitter": definition.jitter.total_seconds(),
        "note": definition.note,
    }


def read_definition(name: str, written: Mapping[str, Any]) -> ScheduleDefinition:
    """Return a definition that :func:`write_definition` has written.

    Raises:
        InvalidInputError: it cannot be used; the text names the field.
    """
    return ScheduleDefinition(
        name,
        written["workflow"],
        read_trigger(written["trigger"]),
        tuple(written["inputs"]),
        written["enabled"],
        Missed(written["missed"]),
        written["missed_limit"],
        Overlap(written["overlap"]),
        timedelta(seconds=written["jitter"]),
        written["note"],
    )


def write_trigger(trigger: Trigger) -> dict[str, JSON]:
    """Return a trigger as the database keeps it."""
    match trigger:
        case CronTrigger():
            return {
                "kind": "cron",
                "expression": trigger.expression,
                "zone": trigger.zone.key,
                "start": _write_time(trigger.start),
                "end": _write_time(trigger.end),
            }
        case IntervalTrigger():
            return {
                "kind": "interval",
                "seconds": int(trigger.every.total_seconds()),
                "start": _write_time(trigger.start),
                "end": _write_time(trigger.end),
            }
        case DateTrigger():
            return {"kind": "date", "at": _write_time(trigger.at)}


def read_trigger(written: Mapping[str, object]) -> Trigger:
    """Return a trigger that :func:`write_trigger` has written.

    Raises:
        InvalidInputError: it cannot be used; the text names the field.
    """
    match written.get("kind"):
        case "cron":
            zone = find_zone(str(written.get("zone")))
            return CronTrigger(
                str(written.get("expression")), zone, _read_bound(written, "start"), _read_bound(written, "end")
            )
        case "interval":
            seconds = written.get("seconds")
            if isinstance(seconds, bool) or not isinstance(seconds, int):
                raise invalid("seconds", seconds, "is not a whole number")
            try:
                every = timedelta(seconds=seconds)
            except OverflowError:
                raise invalid("seconds", seconds, "is too long") from None
            return IntervalTrigger(every, read_time("start", written.get("start")), _read_bound(written, "end"))
        case "date":
            return DateTrigger(read_time("at", written.get("at")))
        case kind:
            raise invalid("trigger", kind, "is none: there are cron, interval and date")


def _write_time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _read_bound(written: Mapping[str, object], name: str) -> datetime | None:
    value = written.get(name)
    return None if value is None else read_time(name, value)
