"""The form that changes a schedule begins with what the schedule is: who changes nothing changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from orchestrator.api.schedule_bodies import ScheduleChange
from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.schedule import read_trigger, write_trigger
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.errors import FormIncompleteError, InvalidInputError
from orchestrator.services.schedule_change_form import fill_schedule_change

NOW = datetime(2026, 11, 25, 1, tzinfo=UTC)
LAST_PAGE = {"overlap": "skip", "missed": "once", "missed_limit": 10, "jitter": 0.0, "note": None}

times = st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
later = st.datetimes(datetime(2030, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is added
seconds = st.one_of(st.integers(1, 10_000), st.sampled_from([60, 3_600, 86_400, 604_800]))
triggers: st.SearchStrategy[Trigger] = st.one_of(
    st.builds(
        CronTrigger,
        st.sampled_from(["30 2 * * *", "*/5 * * * 1-5", "0 0 1 1 *"]),
        st.sampled_from([ZoneInfo("Europe/Amsterdam"), ZoneInfo("UTC")]),
        st.none() | times,
        st.none() | later,
    ),
    st.builds(IntervalTrigger, seconds.map(lambda one: timedelta(seconds=one)), times, st.none() | later),
    st.builds(DateTrigger, later),
)


def stored(trigger: Trigger | dict[str, Any], **values: Any) -> StoredSchedule:
    written = trigger if isinstance(trigger, dict) else from_json(to_json(write_trigger(trigger)))
    row: dict[str, Any] = dict.fromkeys(StoredSchedule.__dataclass_fields__)
    row |= {"schedule_id": UUID(int=1), "name": "s", "workflow": "w", "inputs": [], "enabled": True, "trigger": written}
    return StoredSchedule(**row | LAST_PAGE | values)


@given(trigger=triggers)
def test_who_changes_nothing_changes_nothing(trigger: Trigger) -> None:
    one = stored(trigger)
    body = fill_schedule_change(one, [{}, {}, {}], NOW)
    changes = ScheduleChange.model_validate(body).list_changes(one.trigger, NOW)
    assert changes["trigger"] == trigger
    assert {name: body[name] for name in LAST_PAGE} == LAST_PAGE


def test_another_kind_begins_with_what_a_new_schedule_begins_with() -> None:
    one = stored(IntervalTrigger(timedelta(hours=6), NOW))
    body = fill_schedule_change(one, [{"kind": "cron"}, {}, {}], NOW)
    assert (body["trigger"], body["zone"]) == ("cron", "UTC")
    assert body["trigger_kwargs"] == {"minute": "0", "hour": "3", "day": "*", "month": "*", "day_of_week": "*"}


def test_a_start_that_is_taken_away_is_gone_but_an_interval_is_counted_from_where_it_was_as_with_the_api() -> None:
    start, later_start = NOW - timedelta(hours=25), NOW + timedelta(days=1)
    for trigger, expected, fields in (
        (CronTrigger("30 2 * * *", ZoneInfo("UTC"), later_start), None, {"minute": "30", "hour": "2"}),
        (IntervalTrigger(timedelta(hours=6), start), start, {"hours": 6}),
    ):
        one = stored(trigger)
        body = fill_schedule_change(one, [{}, {"start_date": None}, {}], NOW)
        with pytest.raises(FormIncompleteError) as last:
            fill_schedule_change(one, [{}, {"start_date": None}], NOW)
        changed = ScheduleChange.model_validate(body).list_changes(one.trigger, NOW)["trigger"]
        assert changed == ScheduleChange(trigger_kwargs=fields).list_changes(one.trigger, NOW)["trigger"]
        assert isinstance(changed, CronTrigger | IntervalTrigger)
        assert changed.start == expected
        first = changed.next_slot(NOW)
        assert first is not None
        assert f"{first:%Y-%m-%d %H:%M:%S}" in to_json(last.value.form).decode()


def test_the_page_says_what_becomes_of_an_interval_whose_start_is_left_empty() -> None:
    one = stored(IntervalTrigger(timedelta(hours=6), NOW))
    for kind, words in (("interval", "left empty, from where they were"), ("cron", "without it from now on")):
        with pytest.raises(FormIncompleteError) as asked:
            fill_schedule_change(one, [{"kind": kind}], NOW)
        assert words in to_json(asked.value.form).decode()


def test_a_schedule_without_a_time_to_come_can_get_another_note_but_not_another_time_that_is_over() -> None:
    ended = NOW - timedelta(days=1)
    for trigger, over in (
        (DateTrigger(ended), {"run_date": int(ended.timestamp()) + 60}),
        (CronTrigger("30 2 * * *", ZoneInfo("UTC"), None, ended), {"cron": "31 2 * * *"}),
        (IntervalTrigger(timedelta(hours=6), ended - timedelta(days=1), ended), {"every": 7}),
    ):
        one = stored(trigger)
        body = fill_schedule_change(one, [{}, {}, {"note": "done"}], NOW)
        assert ScheduleChange.model_validate(body).list_changes(one.trigger, NOW)["trigger"] == trigger
        assert body["note"] == "done"
        with pytest.raises(InvalidInputError):
            fill_schedule_change(one, [{}, over, {}], NOW)


def test_the_page_that_asks_how_many_times_are_made_up_for_names_no_other_limit() -> None:
    with pytest.raises(FormIncompleteError) as last:
        fill_schedule_change(stored(IntervalTrigger(timedelta(hours=6), NOW), missed_limit=7), [{}, {}], NOW)
    assert "newest 10" not in to_json(last.value.form).decode()


def test_a_trigger_that_cannot_be_read_is_replaced_by_the_form() -> None:
    for broken in (
        {"kind": "moon"},
        {"kind": "cron", "expression": "61 * * * *", "zone": "UTC"},
        {"kind": "cron", "start": "yesterday"},
        {"kind": "date", "at": "2026-11-25T01:00:00"},
        {"kind": "date"},
    ):
        with pytest.raises(InvalidInputError):
            read_trigger(broken)
        one = stored(broken)
        with pytest.raises(FormIncompleteError):
            fill_schedule_change(one, [{"kind": "cron"}], NOW)
        body = fill_schedule_change(one, [{"kind": "cron"}, {"cron": "5 4 * * *", "zone": "UTC"}, {}], NOW)
        changes = ScheduleChange.model_validate(body).list_changes(one.trigger, NOW)
        assert changes["trigger"] == CronTrigger("5 4 * * *", ZoneInfo("UTC"))


def test_what_does_not_fit_is_named_by_the_field_of_the_page() -> None:
    one = stored(IntervalTrigger(timedelta(hours=6), NOW))
    for page, field in (
        ({"every": 0}, "every"),
        ({"every": 10**6, "unit": "weeks"}, "every"),
        ({"unit": "moons"}, "unit"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            fill_schedule_change(one, [{}, page], NOW)
        (problem, *_) = refused.value.errors
        assert problem["loc"] in ([field], (field,))
