"""Schedules that code declares. Coordinators store them when they start, so they need no server here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from orchestrator.engine.cron import EARLIEST
from orchestrator.engine.schedule import MISSED_LIMIT, Missed, Overlap, ScheduleDefinition
from orchestrator.engine.schedule_check import check_jitter, check_name
from orchestrator.engine.state import store_and_read
from orchestrator.engine.trigger_input import read_time
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.engine.zones import find_zone
from orchestrator.errors import DefinitionError, InvalidInputError
from orchestrator.types import State

INTERVALS_BEGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
"""Where intervals without a start are counted from, in every program and version: a Monday, at midnight in UTC."""

_declared: dict[str, Schedule] = {}


class Source(StrEnum):
    """Whose code declares a schedule."""

    ENGINE = "engine"
    PROJECT = "project"


class Schedule:
    """Declares that a workflow starts by itself. Give one of ``cron``, ``every`` and ``at``.

    Args:
        name: what the schedule is known by. Under another name it is another schedule.
        workflow: the name of a workflow that the code registers.
        cron: minute, hour, day of month, month, day of week, such as ``"30 2 * * *"``.
        zone: the time zone of ``cron``, by its IANA name.
        every: an interval.
        start: the first instant that may be a slot. Intervals are counted from it; without it from :data:`INTERVALS_BEGIN`.
        at: a single date, with an offset from UTC.
        end: the last instant that may be a slot.
        inputs: the pages of the workflow's form, in order.
        enabled: whether it starts anything.
        missed: what becomes of slots at which no coordinator ran: ``"skip"``, ``"once"`` or ``"all"``.
        missed_limit: how many ``"all"`` starts, the newest ones.
        overlap: what becomes of a slot while the process of an earlier one runs: ``"allow"``, ``"skip"`` or ``"queue"``.
        jitter: the longest time by which a start is late.
        note: for people.

    Raises:
        DefinitionError: it cannot work; the text names the argument. Or another schedule has the name.
    """

    def __init__(
        self,
        name: str,
        workflow: str,
        *,
        cron: str | None = None,
        zone: str = "UTC",
        every: timedelta | None = None,
        start: datetime | str | None = None,
        at: datetime | str | None = None,
        end: datetime | str | None = None,
        inputs: Iterable[State] = (),
        enabled: bool = True,
        missed: Missed | Literal["skip", "once", "all"] = Missed.ONCE,
        missed_limit: int = MISSED_LIMIT,
        overlap: Overlap | Literal["allow", "skip", "queue"] = Overlap.SKIP,
        jitter: timedelta = timedelta(0),
        note: str | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise DefinitionError(f"the name of a schedule is a text, not {name!r}")
        with _naming(name, "name"):
            check_name(name)
        if not isinstance(workflow, str) or not workflow:
            raise DefinitionError(f"the schedule {name!r}: workflow: {workflow!r} is no name of a workflow")
        trigger = _read_trigger(name, cron, zone, every, start, at, end)
        for argument, value, kind in (
            ("enabled", enabled, bool),
            ("missed_limit", missed_limit, int),
            ("jitter", jitter, timedelta),
            ("note", note, str | None),
        ):
            if not isinstance(value, kind):
                raise DefinitionError(f"the schedule {name!r}: {argument}: it cannot be {value!r}")
        policies = _read_choice(name, "missed", Missed, missed), _read_choice(name, "overlap", Overlap, overlap)
        pages = _read_pages(name, inputs)
        with _naming(name):
            self.definition = ScheduleDefinition(
                name, workflow, trigger, pages, enabled, policies[0], missed_limit, policies[1], jitter, note
            )
            check_jitter(self.definition)
        if trigger.next_slot(EARLIEST - datetime.resolution) is None:
            raise DefinitionError(f"the schedule {name!r}: end: it is before the first slot, so it would never be due")
        # The engine's own schedules and the project's come and go by themselves: each with the code that declares them.
        package = str(sys._getframe(1).f_globals.get("__name__", "")).partition(".")[0]  # noqa: SLF001 - as warnings do
        self.source = Source.ENGINE if package == __name__.partition(".")[0] else Source.PROJECT
        known = _declared.get(name)
        if known is not None and (known.definition, known.source) != (self.definition, self.source):
            raise DefinitionError(f"the schedule {name!r} is declared twice: give each its own name")
        _declared[name] = self

    def __repr__(self) -> str:
        return f"Schedule({self.definition.name!r}, {self.definition.workflow!r})"


def list_declared() -> list[Schedule]:
    """Return all schedules that the code has declared, by name."""
    return [_declared[name] for name in sorted(_declared)]


def check_workflows(known: Iterable[str]) -> None:
    """Check that the workflow of each declared schedule is one that the code registers.

    Raises:
        DefinitionError: one is not.
    """
    names = set(known)
    for one in list_declared():
        if one.definition.workflow not in names:
            raise DefinitionError(
                f"the schedule {one.definition.name!r}: workflow: the code registers no workflow"
                f" {one.definition.workflow!r}; add its LazyWorkflowInstance"
            )


@contextmanager
def _naming(name: str, argument: str | None = None) -> Iterator[None]:
    """Turn errors about input into errors about the code, with the name of the argument."""
    try:
        yield
    except InvalidInputError as error:
        what = f"{argument}: " if argument is not None and not str(error).startswith(f"{argument}:") else ""
        raise DefinitionError(f"the schedule {name!r}: {what}{error}") from error


def _read_trigger(
    name: str,
    cron: str | None,
    zone: str,
    every: timedelta | None,
    start: datetime | str | None,
    at: datetime | str | None,
    end: datetime | str | None,
) -> Trigger:
    if sum(one is not None for one in (cron, every, at)) != 1:
        raise DefinitionError(f"the schedule {name!r}: give one of cron, every and at")
    first, last = _read_time(name, "start", start), _read_time(name, "end", end)
    if first is not None and last is not None and last < first:
        raise DefinitionError(f"the schedule {name!r}: end: it is before the start")
    if cron is not None:
        if not isinstance(cron, str):
            raise DefinitionError(f"the schedule {name!r}: cron: it is an expression such as '0 3 * * *', not {cron!r}")
        with _naming(name, "zone"):
            found = find_zone(zone)
        with _naming(name, "cron"):
            return CronTrigger(cron, found, first, last)
    if every is not None:
        if not isinstance(every, timedelta):
            raise DefinitionError(f"the schedule {name!r}: every: it is a timedelta, not {every!r}")
        with _naming(name, "every"):
            return IntervalTrigger(every, first or INTERVALS_BEGIN, last)
    if first is not None or last is not None:
        raise DefinitionError(f"the schedule {name!r}: start, end: a schedule that is due once has neither")
    once = _read_time(name, "at", at)
    assert once is not None  # noqa: S101 - one of the three is given
    with _naming(name, "at"):
        return DateTrigger(once)


def _read_time(name: str, argument: str, value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    with _naming(name, argument):
        return read_time(argument, value)


def _read_choice(name: str, argument: str, kind: type[Any], value: object) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise DefinitionError(
            f"the schedule {name!r}: {argument}: {value!r} is none of {', '.join(repr(one.value) for one in kind)}"
        ) from None


def _read_pages(name: str, inputs: Iterable[State]) -> tuple[State, ...]:
    pages = None if isinstance(inputs, dict | str) else tuple(inputs)
    if pages is None or not all(isinstance(page, dict) for page in pages):
        raise DefinitionError(f"the schedule {name!r}: inputs: it is a list of pages, each a dict, not {inputs!r}")
    for number, page in enumerate(pages, start=1):
        try:
            store_and_read(page)
        except ValueError as error:
            raise DefinitionError(
                f"the schedule {name!r}: inputs: page {number} cannot be stored as JSON: {error}"
            ) from error
    # As the database gives them back, so that they compare equal.
    return tuple(store_and_read(page) for page in pages)  # type: ignore[misc]
