"""Cron expressions: their syntax, and the instants at which they are due in a time zone.

The library matches wall times without a zone. This module maps them to UTC, with one rule for clock changes:

* An expression whose minute and hour both do not begin with ``*`` names *times of day*. It is due when the clock on the wall
  first reaches or passes such a time: when a time comes twice, at the first; when the clock leaves times out, at the change,
  once for all of them.
* Any other expression names *a rhythm*. It is due at every real minute whose wall time fits: both times, and never for times
  that are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from orchestrator.engine.zones import find_change, invalid, to_instants, to_wall

FIELDS: Final = ("minute", "hour", "day", "month", "day_of_week")
"""The fields of an expression in order, by their names in the API."""

MAX_LENGTH: Final = 512
"""The longest expression, in characters; the library parses it on the event loop."""

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No trigger has a slot before it."""

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = (
    (),
    (),
    (),
    ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
)
_EXAMPLES = ("0", "3", "1", "1-6", "MON-FRI")
_TERM = re.compile(r"(?:\*|(?P<first>[0-9A-Z]+)(?:-(?P<last>[0-9A-Z]+))?)(?:/(?P<step>[0-9]{1,4}))?")
_LAST_DAY = re.compile(r"LW?")
_NTH_WEEKDAY = re.compile(r"(?P<day>[0-9A-Z]+)#[1-5]|[0-7]L")


class Change(StrEnum):
    """What a clock change does to an occurrence."""

    MOVED = "moved"
    DROPPED = "dropped"
    FIRST_OF_TWO = "the first time"
    SECOND_OF_TWO = "the second time"
    ONLY_FIRST = "due the first time only"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A wall time that fits an expression, and its instant.

    Args:
        at: the instant; for a dropped one that of the clock change.
        wall: the wall time that fits, even if no clock has shown it.
    """

    at: datetime
    wall: datetime
    change: Change | None = None


def check_expression(expression: str) -> str:
    """Return an expression in its one form: upper case, fields separated by one space.

    Raises:
        InvalidInputError: it is none; the text names the field.
    """
    if len(expression) > MAX_LENGTH:
        raise invalid("cron", expression, f"is longer than {MAX_LENGTH} characters")
    fields = expression.upper().split() if expression.isascii() else []
    if len(fields) != len(FIELDS):
        raise invalid("cron", expression, f"must have five fields: {' '.join(FIELDS)}; there is none for seconds")
    for position, field in enumerate(fields):
        for term in field.split(","):
            problem = _find_problem(position, term)
            if problem:
                raise invalid(FIELDS[position], field, problem)
    written = " ".join(fields)
    try:
        has_match = next(CronSim(written, datetime(2000, 1, 1)), None) is not None  # noqa: DTZ001 - wall times have no zone
    except CronSimError:
        has_match = False
    if not has_match:
        raise invalid("day", fields[2], f"fits no date together with month {fields[3]!r} and day_of_week {fields[4]!r}")
    return written


def is_rhythm(expression: str) -> bool:
    """Return whether an expression names a rhythm instead of times of day."""
    minute, hour, *_ = expression.split()
    return minute.startswith("*") or hour.startswith("*")


def list_occurrences(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[Occurrence]:
    """Yield what is due after an instant, in order of time, and between them what clock changes drop.

    Args:
        expression: as :func:`check_expression` returns it.
    """
    rhythm = is_rhythm(expression)
    second_passes: list[Occurrence] = []
    # Wall times of one repeated hour follow each other: all first passes, then all second ones.
    for wall in _list_walls(expression, zone, after):
        try:
            before_change, after_change = to_instants(wall, zone)
        except OverflowError:
            break
        repeated = after_change - before_change
        if second_passes and (repeated <= timedelta() or wall - second_passes[0].wall >= repeated):
            yield from _later(second_passes, after)
            second_passes = []
        if before_change == after_change:
            found = Occurrence(before_change, wall)
        elif before_change > after_change:
            found = Occurrence(
                find_change(after_change, before_change, zone), wall, Change.DROPPED if rhythm else Change.MOVED
            )
        elif rhythm:
            found = Occurrence(before_change, wall, Change.FIRST_OF_TWO)
            second_passes.append(Occurrence(after_change, wall, Change.SECOND_OF_TWO))
        else:
            found = Occurrence(before_change, wall, Change.ONLY_FIRST)
        yield from _later([found], after)
    yield from _later(second_passes, after)


def list_instants(occurrences: Iterable[Occurrence]) -> Iterator[datetime]:
    """Yield the instants at which an expression is due, each once, in order."""
    newest = None
    for one in occurrences:
        if one.change is not Change.DROPPED and (newest is None or one.at > newest):
            newest = one.at
            yield newest


def _later(found: list[Occurrence], after: datetime) -> Iterator[Occurrence]:
    return (one for one in found if one.at > after)


def _repeated(wall: datetime, zone: ZoneInfo) -> timedelta:
    before_change, after_change = to_instants(wall, zone)
    return after_change - before_change


def _list_walls(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield the wall times that fit, from the one that a clock shows, or from before it while its hour is repeated."""
    start = to_wall(max(after, EARLIEST), zone)
    repeated = _repeated(start, zone)
    if repeated > timedelta():
        start -= repeated
    try:
        # The iteration ends when nothing matches for 50 years.
        yield from CronSim(expression, start)
    except OverflowError:
        return  # the year 9999 is over


def _find_problem(position: int, term: str) -> str:
    """Return what is wrong with a term of a field, or nothing."""
    low, high = _RANGES[position]
    if FIELDS[position] == "day" and _LAST_DAY.fullmatch(term):
        return ""
    nth = _NTH_WEEKDAY.fullmatch(term) if FIELDS[position] == "day_of_week" else None
    if nth:
        known = nth["day"] is None or _read(position, nth["day"]) is not None
        return "" if known else f"has a weekday that is not one: {nth['day']!r}"
    parts = _TERM.fullmatch(term)
    if not parts:
        return f"cannot be read: write '*', a value from {low} to {high}, a range, or a list, such as {_EXAMPLES[position]!r}"
    values = [_read(position, part) for part in (parts["first"], parts["last"]) if part]
    if None in values:
        names = f", or {' '.join(_NAMES[position])}" if _NAMES[position] else ""
        return f"has {term!r}: values go from {low} to {high}{names}"
    first, last = (values * 2)[:2] if values else (low, high)
    if first is not None and last is not None and first > last:
        return f"has a range that ends before it begins: {term!r}; write two, with a comma between them"
    if parts["step"] is None:
        return ""
    if len(values) == 1:
        return f"has a step without a range: {term!r}; write '{parts['first']}-{high}/{parts['step']}'"
    if first == last:  # the library reads it as a range to the end
        return f"has a step in a range of one value: {term!r}; write {parts['first']!r}"
    if not 1 <= int(parts["step"]) <= high:
        return f"has a step that is not from 1 to {high}: {term!r}"
    return ""


def _read(position: int, written: str) -> int | None:
    low, high = _RANGES[position]
    if written in _NAMES[position]:
        return _NAMES[position].index(written) + low
    return int(written) if re.fullmatch("[0-9]{1,2}", written) and low <= int(written) <= high else None
