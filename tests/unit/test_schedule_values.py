"""Triggers as the database keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic_core import from_json, to_json

from orchestrator.engine.schedule import read_trigger, write_trigger
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.errors import InvalidInputError

START = datetime(2026, 11, 25, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "trigger",
    [
        CronTrigger("30 2 * * *", ZoneInfo("Europe/Amsterdam")),
        CronTrigger("*/5 * * * 1-5", ZoneInfo("America/Santiago"), START, START + timedelta(days=3)),
        IntervalTrigger(timedelta(hours=6), START),
        IntervalTrigger(timedelta(seconds=90), START, START + timedelta(days=1)),
        DateTrigger(START),
    ],
    ids=["cron", "bounded cron", "interval", "bounded interval", "date"],
)
def test_a_trigger_is_the_same_after_it_was_kept_as_json(trigger: Trigger) -> None:
    assert read_trigger(from_json(to_json(write_trigger(trigger)))) == trigger


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ({}, "trigger"),
        ({"kind": "moon"}, "trigger"),
        ({"kind": "cron", "expression": "61 * * * *", "zone": "UTC"}, "minute"),
        ({"kind": "cron", "expression": "* * * * *", "zone": "UTC+2"}, "zone"),
        ({"kind": "interval", "seconds": 0, "start": "2026-11-25T01:00:00+00:00"}, "interval"),
        ({"kind": "interval", "seconds": 10**20, "start": "2026-11-25T01:00:00+00:00"}, "seconds"),
        ({"kind": "interval", "seconds": True}, "seconds"),
        ({"kind": "interval", "seconds": 60}, "start"),
        ({"kind": "date", "at": "2026-11-25T01:00:00"}, "at"),
    ],
    ids=["nothing", "kind", "cron", "zone", "zero", "too long", "bool", "no start", "no offset"],
)
def test_a_kept_trigger_that_no_longer_works_is_refused_by_its_field(written: dict[str, object], names: str) -> None:
    with pytest.raises(InvalidInputError, match=names):
        read_trigger(written)
