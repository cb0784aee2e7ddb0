"""A second way to find the slots of a cron expression: watch a clock on the wall, minute by minute. No cron library."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

MINUTE = timedelta(minutes=1)
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def utc(written: str) -> datetime:
    return datetime.fromisoformat(f"{written}+00:00")


def expand(field: str, position: int) -> set[int]:
    low, high = RANGES[position]
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = (str(low), "", str(high)) if span == "*" else span.partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


class Matcher:
    """Does a wall time fit an expression of numbers?"""

    def __init__(self, expression: str) -> None:
        fields = expression.split()
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            expand(field, position) for position, field in enumerate(fields)
        )
        self.both = fields[2].startswith("*") or fields[4].startswith("*")
        self.rhythm = fields[0].startswith("*") or fields[1].startswith("*")

    def fits(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        day, weekday = wall.day in self.days, bool(self.weekdays & {wall.isoweekday(), wall.isoweekday() % 7})
        return day and weekday if self.both else day or weekday


def walls(zone: ZoneInfo, first: datetime, last: datetime) -> list[tuple[datetime, datetime]]:
    """Return every minute from first to last, with what the wall shows."""
    count = (last - first) // MINUTE
    instants = [first + number * MINUTE for number in range(count + 1)]
    return [(instant, instant.astimezone(zone).replace(tzinfo=None, fold=0)) for instant in instants]


def watch(expression: str, minutes: list[tuple[datetime, datetime]]) -> list[datetime]:
    """Return the slots after the first minute: a rhythm fits what the wall shows, a time of day is reached or passed once."""
    matcher, found = Matcher(expression), []
    furthest = minutes[0][1]
    for (_, _), (instant, wall) in pairwise(minutes):
        if matcher.rhythm:
            due = matcher.fits(wall)
        else:
            following = furthest + MINUTE
            if wall == following:  # as nearly always
                due = matcher.fits(wall)
            else:
                passed = int((wall - furthest) / MINUTE)
                due = any(matcher.fits(furthest + number * MINUTE) for number in range(1, passed + 1))
            furthest = max(furthest, wall)
        if due:
            found.append(instant)
    return found


def list_changes(first: datetime, last: datetime) -> Iterator[tuple[ZoneInfo, datetime]]:
    """Yield every clock change of every zone, once for all zones that change alike at that instant."""
    seen = set()
    for name in sorted(available_timezones() - {"localtime", "Factory"}):
        zone = ZoneInfo(name)
        low = first
        while low < last:
            high = low + timedelta(days=6)
            before, after = low.astimezone(zone).utcoffset(), high.astimezone(zone).utcoffset()
            if before != after:
                bottom, top = low, high
                while top - bottom > MINUTE:
                    middle = bottom + (top - bottom) // MINUTE // 2 * MINUTE
                    same = middle.astimezone(zone).utcoffset() == before
                    bottom, top = (middle, top) if same else (bottom, middle)
                if (top, before, after) not in seen:
                    seen.add((top, before, after))
                    yield zone, top
            low = high
