"""Write a trigger for people, in the words of the command line's options."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from orchestrator.engine.triggers import CronTrigger, IntervalTrigger, Trigger

_UNITS = {"w": timedelta(weeks=1), "d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def write_words(trigger: Trigger) -> str:
    """Return a text that says when a trigger is due."""
    if isinstance(trigger, CronTrigger):
        parts = [f"cron {trigger.expression}", trigger.zone.key, *_bounds(trigger.start, trigger.end)]
    elif isinstance(trigger, IntervalTrigger):
        parts = [f"every {_write_span(trigger.every)}", *_bounds(trigger.start, trigger.end)]
    else:
        parts = [f"at {_write_time(trigger.at)}"]
    return ", ".join(parts)


def _bounds(start: datetime | None, end: datetime | None) -> list[str]:
    return [f"{word} {_write_time(time)}" for word, time in (("from", start), ("until", end)) if time is not None]


def _write_time(time: datetime) -> str:
    return time.astimezone(ZoneInfo("UTC")).isoformat(timespec="seconds").replace("+00:00", "Z")


def _write_span(span: timedelta) -> str:
    for unit, length in _UNITS.items():
        if not span % length:
            return f"{span // length}{unit}"
    return f"{int(span.total_seconds())}s"
