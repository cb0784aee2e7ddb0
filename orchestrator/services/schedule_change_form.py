"""The form by which people change a schedule: the kind of trigger, the time, and what follows from it.

Each page begins with what the schedule is now. Its result is the body of the request that then changes the schedule. Nothing is
stored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import ConfigDict, Field, create_model
from pydantic_forms.validators import LongText, Timestamp

from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.cron import FIELDS
from orchestrator.engine.schedule import LONGEST_JITTER, MOST_MADE_UP
from orchestrator.engine.trigger_input import UNITS, read_time, write_fields
from orchestrator.errors import InvalidInputError
from orchestrator.forms import FormPage, Pages
from orchestrator.services.hooks import check_pages
from orchestrator.services.schedule_form import (
    TIME_PAGES,
    CronPage,
    IntervalPage,
    LastPage,
    MissedChoice,
    OverlapChoice,
    TimePage,
    TriggerKind,
    make_last_page,
    make_trigger,
)
from orchestrator.text import MAX_NOTE
from orchestrator.types import State

_WHAT: Final = "the form that changes a schedule"
_TIMES: Final = ("start_date", "end_date", "run_date")

P = TypeVar("P", bound=FormPage)


class _KindPage(FormPage):
    model_config = ConfigDict(title="Schedule")

    kind: TriggerKind = Field(TriggerKind.CRON, title="It runs")


class _IntervalPage(IntervalPage):
    start_date: Annotated[
        Timestamp | None,
        Field(title="Start", description="Its times are counted from there; left empty, from where they were."),
    ] = None


class _ChangePage(LastPage):
    missed: MissedChoice = Field(MissedChoice.ONCE, title="After an outage")
    missed_limit: int = Field(1, ge=1, le=MOST_MADE_UP, title="Most times that are made up for after an outage")
    jitter: float = Field(
        0, ge=0, le=LONGEST_JITTER, title="Spread, in seconds", description="A run is late by so much at most."
    )
    note: LongText | None = Field(None, max_length=MAX_NOTE, title="Note")


def fill_schedule_change(stored: StoredSchedule, pages: Sequence[State], now: datetime) -> State:
    """Return the body of the request that changes a schedule as these pages say; what it does not name stays.

    Args:
        now: from which on the coming slots are shown.

    Raises:
        FormIncompleteError: there is another page.
        InvalidInputError: the pages do not fit; the errors name the fields of the page.
    """
    check_pages(pages)
    sent = Pages(pages, _WHAT)
    kind, kwargs, zone = write_fields(stored.trigger)
    present = {"kind": TriggerKind(kind)} if kind in set(TriggerKind) else {}
    chosen: TriggerKind = cast("Any", sent.fill(_prefill(_KindPage, present))).kind
    page = _IntervalPage if chosen.value == kind == "interval" else TIME_PAGES[chosen]
    times = _read_times(kwargs)
    if chosen.value == kind:
        page = _prefill(page, {**_write_fields(chosen, kwargs, zone), **{name: at for name, (at, _) in times.items()}})
    timed = sent.fill(page)
    assert isinstance(timed, TimePage)  # noqa: S101 - it is what was filled
    wanted = timed.trigger_kwargs()
    for name, (at, written) in times.items():
        # The form has whole seconds. What was not changed stays what it was.
        if getattr(timed, name, None) == at:
            wanted[name] = written
    zone = timed.zone if isinstance(timed, CronPage) else "UTC"
    if chosen.value == kind == "interval":
        # As with the API: where its slots are counted from stays, unless it is given.
        wanted.setdefault("start_date", kwargs.get("start_date"))
    trigger = make_trigger(chosen, wanted, zone, now, stored.trigger)
    last = _prefill(
        _ChangePage,
        {
            "overlap": OverlapChoice(stored.overlap),
            "missed": MissedChoice(stored.missed),
            "missed_limit": stored.missed_limit,
            "jitter": stored.jitter,
            "note": stored.note,
        },
    )
    answer = cast("Any", sent.fill(make_last_page(last, trigger, zone, now)))
    sent.require_none_left()
    return {
        "trigger": chosen.value,
        "trigger_kwargs": wanted,
        "zone": zone,
        "overlap": answer.overlap.value,
        "missed": answer.missed.value,
        "missed_limit": answer.missed_limit,
        "jitter": answer.jitter,
        "note": answer.note,
    }


def _prefill(page: type[P], values: Mapping[str, object]) -> type[P]:
    """Return a page whose fields have these values until a person writes others."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        field = copy(page.model_fields[name])
        field.default = value
        fields[name] = (field.annotation, field)
    return create_model(page.__name__, __base__=page, **fields)


def _write_fields(kind: TriggerKind, kwargs: Mapping[str, object], zone: str) -> dict[str, object]:
    """Return what the page for the time has for a stored trigger, but for its bounds."""
    if kind is TriggerKind.CRON:
        return {"cron": " ".join(str(kwargs[name]) for name in FIELDS if name in kwargs), "zone": zone}
    return next(({"every": kwargs[unit], "unit": unit} for unit in UNITS if unit in kwargs), {})


def _read_times(kwargs: Mapping[str, object]) -> dict[str, tuple[int, str]]:
    """Return the times of a stored trigger in seconds since 1970, each as it was written, too; none that cannot be read."""
    found = {}
    for name in _TIMES:
        with suppress(InvalidInputError):
            found[name] = (int(read_time(name, kwargs.get(name)).timestamp()), str(kwargs.get(name)))
    return found
