"""When a schedule is due: by a cron expression, at an interval, or once.

A *slot* is an instant at which it is due. Slots follow from the trigger alone: every program computes the same ones at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Final
from zoneinfo import ZoneInfo

from orchestrator.engine.cron import EARLIEST, Occurrence, check_expression, list_instants, list_occurrences
from orchestrator.engine.zones import invalid

SHORTEST: Final = timedelta(seconds=1)
LONGEST: Final = timedelta(days=3660)
"""The limits of an interval."""


@dataclass(frozen=True, slots=True)
class _Trigger:
    """What triggers have in common: how slots are bounded."""

    def slots(self, after: datetime, *, until: datetime | None = None, count: int | None = None) -> Iterator[datetime]:
        """Yield the slots after an instant in order, in UTC.

        Args:
            after: exclusive, with a time zone.
            until: inclusive, with a time zone.
            count: the most slots to yield. Without it and ``until`` most triggers have slots for thousands of years.
        """
        found = self._list_slots(check_aware("after", after))
        if until is not None:
            limit = check_aware("until", until)
            found = takewhile(lambda slot: slot <= limit, found)
        return found if count is None else islice(found, count)

    def next_slot(self, after: datetime) -> datetime | None:
        """Return the first slot after an instant, if there is one."""
        return next(self.slots(after), None)

    def _list_slots(self, after: datetime) -> Iterator[datetime]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class CronTrigger(_Trigger):
    """Due when a wall clock shows times that fit an expression; :mod:`orchestrator.engine.cron` has the rule for clock changes.

    Args:
        expression: minute, hour, day of month, month, day of week.
        start: the first instant that may be a slot.
        end: the last one.

    Raises:
        InvalidInputError: the expression is none, or never fits; a bound has no time zone.
    """

    expression: str
    zone: ZoneInfo
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", check_expression(self.expression))
        _check_bounds(self.start, self.end)

    def list_occurrences(self, after: datetime) -> Iterator[Occurrence]:
        """Yield the slots after an instant with what clock changes do to them, and the times that these drop."""
        if self.start is not None:
            after = max(after, self.start - datetime.resolution)
        found = list_occurrences(self.expression, self.zone, after)
        end = self.end
        return found if end is None else takewhile(lambda one: one.at <= end, found)

    def _list_slots(self, after: datetime) -> Iterator[datetime]:
        return list_instants(self.list_occurrences(after))


@dataclass(frozen=True, slots=True)
class IntervalTrigger(_Trigger):
    """Due at ``start`` and whenever ``every`` has passed since: elapsed time, so that clock changes move the wall time.

    Args:
        start: the first slot, from which all others are counted, however late one of them ran.
        end: the last instant that may be a slot.

    Raises:
        InvalidInputError: the interval is no number of seconds within the limits; a time has no time zone.
    """

    every: timedelta
    start: datetime
    end: datetime | None = None

    def __post_init__(self) -> None:
        if not SHORTEST <= self.every <= LONGEST or self.every % timedelta(seconds=1):
            raise invalid("interval", str(self.every), f"must be whole seconds, from 1 second to {LONGEST.days} days")
        _check_bounds(self.start, self.end)

    def _list_slots(self, after: datetime) -> Iterator[datetime]:
        end = self.end
        found = self._count(after)
        return found if end is None else takewhile(lambda slot: slot <= end, found)

    def _count(self, after: datetime) -> Iterator[datetime]:
        start = self.start.astimezone(UTC)
        number = max(0, (after - start) // self.every + 1)
        try:
            while True:
                yield start + number * self.every
                number += 1
        except OverflowError:
            return  # the year 9999 is over


@dataclass(frozen=True, slots=True)
class DateTrigger(_Trigger):
    """Due once.

    Raises:
        InvalidInputError: the time has no time zone.
    """

    at: datetime

    def __post_init__(self) -> None:
        _check_bounds(self.at, None, name="run_date")

    def _list_slots(self, after: datetime) -> Iterator[datetime]:
        return iter([self.at.astimezone(UTC)] if self.at > after else [])


Trigger = CronTrigger | IntervalTrigger | DateTrigger


def check_aware(name: str, time: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        InvalidInputError: it has no time zone, so that it could be any of many instants.
    """
    if time.utcoffset() is None:
        raise invalid(name, time.isoformat(), "has no time zone: add the offset from UTC, such as +01:00, or Z")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise invalid(name, time.isoformat(), "is outside the years 1 to 9999 in UTC") from None


def _check_bounds(start: datetime | None, end: datetime | None, *, name: str = "start_date") -> None:
    first = EARLIEST if start is None else check_aware(name, start)
    if first < EARLIEST:
        raise invalid(name, first.isoformat(), f"is before {EARLIEST.year}")
    if end is not None and check_aware("end_date", end) < first:
        raise invalid("end_date", end.isoformat(), "is before the start")
