"""Convert triggers from and to the form in which the HTTP API and people write them: ``trigger`` and ``trigger_kwargs``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from orchestrator.engine.cron import FIELDS
from orchestrator.engine.triggers import LONGEST, CronTrigger, DateTrigger, IntervalTrigger, Trigger, check_aware
from orchestrator.engine.zones import invalid

UNITS: Final = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
"""The units of an interval, with their seconds."""

_BOUNDS = ("start_date", "end_date")
_KNOWN = {
    "date": ("run_date",),
    "interval": (*UNITS, *_BOUNDS),
    "cron": (*FIELDS, "second", *_BOUNDS),
}

_BY_SIZE = ("month", "day", "day_of_week", "hour", "minute")
_SMALLEST = {"day": "1", "day_of_week": "*", "hour": "0", "minute": "0"}


def build_trigger(kind: str, fields: Mapping[str, object], *, zone: ZoneInfo, now: datetime) -> Trigger:
    """Make a trigger.

    Args:
        kind: ``date``, ``interval`` or ``cron``.
        fields: as the API names them. ``None`` is the same as a field that is not there.
        zone: for cron.
        now: where an interval without ``start_date`` begins; its first slot is one interval later.

    Raises:
        InvalidInputError: something cannot be used; the text names the field.
    """
    if kind not in _KNOWN:
        raise invalid("trigger", kind, f"is none: use {', '.join(_KNOWN)}")
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if name not in _KNOWN[kind]:
            raise invalid(name, value, f"is not a field of the trigger {kind!r}: it has {', '.join(_KNOWN[kind])}")
    if kind == "date":
        if "run_date" not in given:
            raise invalid("run_date", None, "is missing: when is the schedule due?")
        return DateTrigger(read_time("run_date", given["run_date"]))
    start, end = (read_time(name, given[name]) if name in given else None for name in _BOUNDS)
    if kind == "interval":
        return IntervalTrigger(_read_interval(given), start or now.replace(microsecond=0), end)
    return CronTrigger(_read_expression(given), zone, start, end)


def write_fields(written: Mapping[str, object]) -> tuple[str, dict[str, object], str]:
    """Return kind, fields and zone of a stored trigger, even of a broken one, as :func:`build_trigger` takes them."""
    kind = str(written.get("kind"))
    bounds = {name: written.get(name.removesuffix("_date")) for name in _BOUNDS}
    found: dict[str, object] = {name: value for name, value in bounds.items() if value is not None}
    if kind == "date":
        return kind, {"run_date": written.get("at")}, "UTC"
    if kind == "interval":
        return kind, {**_write_interval(written.get("seconds")), **found}, "UTC"
    expression = str(written.get("expression"))
    fields = expression.split()
    cron: dict[str, object] = dict(zip(FIELDS, fields, strict=False)) if len(fields) == len(FIELDS) else {}
    return kind, {**(cron or {"minute": expression}), **found}, str(written.get("zone"))


def _write_interval(seconds: object) -> dict[str, object]:
    if not isinstance(seconds, int) or not seconds:
        return {"seconds": seconds}
    unit = next(unit for unit, length in UNITS.items() if seconds % length == 0)
    return {unit: seconds // UNITS[unit]}


def _read_interval(given: Mapping[str, object]) -> timedelta:
    named = {unit: given[unit] for unit in UNITS if unit in given}
    if not named:
        raise invalid("interval", None, f"is missing: give at least one of {', '.join(UNITS)}")
    seconds = 0
    for unit, value in named.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(unit, value, "is not a whole number")
        if not 0 <= value * UNITS[unit] <= LONGEST.total_seconds():
            raise invalid(unit, value, f"must be from 0 to {int(LONGEST.total_seconds()) // UNITS[unit]}")
        seconds += value * UNITS[unit]
    if not seconds:
        raise invalid("interval", 0, f"is no interval: one of {', '.join(UNITS)} must be more than zero")
    return timedelta(seconds=seconds)


def _read_expression(given: Mapping[str, object]) -> str:
    """Fill in the fields that are not given: ``*``, but the smallest value below the smallest unit that is given."""
    second = given.get("second", 0)
    if isinstance(second, bool) or str(second).strip() != "0":
        raise invalid("second", second, "is not possible: cron schedules are due at whole minutes, so it can only be 0")
    written = {name: _read_field(name, given[name]) for name in FIELDS if name in given}
    if not written:
        raise invalid("cron", None, f"is missing: give at least one of {', '.join(FIELDS)}")
    smallest = max(_BY_SIZE.index(name) for name in written)
    for position, name in enumerate(_BY_SIZE):
        if name not in written:
            written[name] = "*" if position < smallest else _SMALLEST[name]
    return " ".join(written[name] for name in FIELDS)


def _read_field(name: str, value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text.split()) != 1 or not text.isascii():
        raise invalid(name, value, "must be one cron field, such as '*/5' or 3")
    return text.strip()


def read_time(name: str, value: object) -> datetime:
    """Parse a time and return it in UTC.

    Raises:
        InvalidInputError: it is none, or has no offset; the text names the field.
    """
    if isinstance(value, datetime):
        return check_aware(name, value)
    try:
        return check_aware(name, datetime.fromisoformat(str(value) if isinstance(value, str) else ""))
    except ValueError:
        raise invalid(name, value, "is not a time: write it like 2026-11-25T09:00:00+01:00") from None
