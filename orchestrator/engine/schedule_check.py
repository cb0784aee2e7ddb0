"""Check a schedule before it is stored, beyond what its parts check themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from orchestrator.engine.schedule import ScheduleDefinition
from orchestrator.engine.triggers import DateTrigger, IntervalTrigger, Trigger
from orchestrator.engine.zones import invalid

MAX_NAME: Final = 200
"""Characters of a schedule's name."""


def check_name(name: str) -> str:
    """Return the name if people and programs can write it.

    Raises:
        InvalidInputError: it is none.
    """
    if not name.strip() or name != name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise invalid("name", name, f"is no name: 1 to {MAX_NAME} printable characters, without spaces around them")
    return name


def check_coming(trigger: Trigger, now: datetime) -> None:
    """Check that a trigger has a slot to come.

    Raises:
        InvalidInputError: it has none; the text names the field.
    """
    if trigger.next_slot(now) is not None:
        return
    if isinstance(trigger, DateTrigger):
        raise invalid(
            "run_date", trigger.at.isoformat(), "is in the past: a schedule that is due once needs a time to come"
        )
    end = "" if trigger.end is None else trigger.end.isoformat()
    raise invalid("end_date", end, "leaves no slot: there is none from now until then")


def check_jitter(definition: ScheduleDefinition) -> None:
    """Check that a schedule's jitter is shorter than its interval.

    Raises:
        InvalidInputError: it is not.
    """
    trigger = definition.trigger
    if isinstance(trigger, IntervalTrigger) and definition.jitter >= trigger.every:
        raise invalid("jitter", str(definition.jitter), f"must be shorter than the interval, {trigger.every}")
