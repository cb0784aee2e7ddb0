"""When schedules are due. The expected instants were worked out from the zones' rules, without a cron library."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger
from orchestrator.errors import InvalidInputError
from tests.unit.wall_clock import list_changes, utc, walls, watch

AMSTERDAM = "Europe/Amsterdam"

VECTORS = [
    # Asked from within the repeated hour.
    (AMSTERDAM, "30 2 * * *", "2026-10-25T01:10", "2026-10-26T01:30"),
    ("America/Santiago", "30 23 * * *", "2026-04-05T03:00", "2026-04-06T03:30"),
    ("Europe/Helsinki", "30 * * * *", "2026-10-25T00:00", "2026-10-25T00:30 01:30 02:30 03:30"),
    # A time that the clock leaves out.
    (AMSTERDAM, "30 2 * * *", "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:30"),
    ("America/Chicago", "30 2 * * *", "2026-03-07T12:00", "2026-03-08T08:00 2026-03-09T07:30"),
    (AMSTERDAM, "30 1-4 * * *", "2026-03-28T12:00", "2026-03-29T00:30 01:00 01:30 02:30 23:30"),
    (AMSTERDAM, "0 2,3 * * *", "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:00"),
    (AMSTERDAM, "*/20 * * * *", "2026-03-29T00:30", "2026-03-29T00:40 01:00 01:20"),
    # No day is left out in spring.
    ("America/Los_Angeles", "0 0 * * *", "2026-03-07T07:59", "2026-03-07T08:00 2026-03-08T08:00 2026-03-09T07:00"),
    ("America/Los_Angeles", "0 0 * * *", "2026-03-09T07:00", "2026-03-10T07:00"),
    ("Europe/Berlin", "0 12 * * 0", "2026-03-24T00:00", "2026-03-29T10:00 2026-04-05T10:00"),
    # An hour that comes twice: rhythms go on, times of day come once.
    ("America/New_York", "*/30 * * * *", "2026-11-01T04:00", "2026-11-01T04:30 05:00 05:30 06:00 06:30 07:00 07:30"),
    ("America/New_York", "30 1 * * *", "2026-10-30T12:00", "2026-10-31T05:30 2026-11-01T05:30 2026-11-02T06:30"),
    (AMSTERDAM, "0 0-23 * * *", "2026-10-24T23:30", "2026-10-25T00:00 02:00"),
    (AMSTERDAM, "0 * * * *", "2026-10-24T23:30", "2026-10-25T00:00 01:00 02:00"),
    # The zone of a schedule is changed.
    ("Australia/Sydney", "0 21 * * *", "2026-05-19T10:00", "2026-05-19T11:00"),
    ("Europe/Berlin", "0 21 * * *", "2026-05-19T10:00", "2026-05-19T19:00 2026-05-20T19:00"),
    # The programs were away at the slot; it was paused at 10:05 and resumed at 14:20.
    ("UTC", "0 16 * * *", "2026-11-25T15:59:59", "2026-11-25T16:00 2026-11-26T16:00"),
    ("UTC", "0 * * * *", "2026-11-25T14:20", "2026-11-25T15:00"),
    # Weekdays.
    ("UTC", "0 0 * * 0", "2026-11-25T00:00", "2026-11-29T00:00 2026-12-06T00:00"),
    ("UTC", "0 0 * * 7", "2026-11-25T00:00", "2026-11-29T00:00 2026-12-06T00:00"),
    ("UTC", "0 0 * * sun", "2026-11-25T00:00", "2026-11-29T00:00 2026-12-06T00:00"),
    ("UTC", "0 0 * * 5-7", "2026-11-25T00:00", "2026-11-27T00:00 2026-11-28T00:00 2026-11-29T00:00 2026-12-04T00:00"),
    # Day of month and day of week: either, unless one begins with a star.
    ("UTC", "0 0 13 * 5", "2026-11-25T00:00", "2026-11-27T00:00 2026-12-04T00:00 2026-12-11T00:00 2026-12-13T00:00"),
    ("UTC", "0 0 13 * 5", "2026-12-13T00:00", "2026-12-18T00:00"),
    ("UTC", "0 0 */2 * 1", "2026-11-25T00:00", "2026-12-07T00:00 2026-12-21T00:00 2027-01-11T00:00 2027-01-25T00:00"),
    # Leap years, month ends, and rare dates.
    ("UTC", "0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00"),
    ("UTC", "0 0 31 2 1", "2026-11-25T00:00", "2027-02-01T00:00 2027-02-08T00:00"),
    ("UTC", "0 0 31 * *", "2026-11-25T00:00", "2026-12-31T00:00 2027-01-31T00:00 2027-03-31T00:00"),
    ("UTC", "0 0 L * *", "2027-01-31T00:00", "2027-02-28T00:00 2027-03-31T00:00"),
    ("UTC", "0 0 LW * *", "2027-01-31T00:00", "2027-02-26T00:00 2027-03-31T00:00"),
    ("UTC", "0 0 * * 5#2", "2026-11-25T00:00", "2026-12-11T00:00 2027-01-08T00:00"),
    ("UTC", "0 0 * * 5L", "2026-11-25T00:00", "2026-11-27T00:00 2026-12-25T00:00"),
    # Odd offsets: half an hour of summer time, three quarters, a zone two hours ahead in summer, a day that never was.
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00", "2026-04-04T14:45 2026-04-05T15:15"),
    ("Australia/Lord_Howe", "*/15 1 * * *", "2026-04-04T14:00", "2026-04-04T14:15 14:30 14:45 15:00 15:15 2026-04-05T14:30"),
    ("Australia/Lord_Howe", "*/7 1-2 * * 0", "2026-04-04T14:50", "2026-04-04T14:56 15:05 15:12 15:19 15:26 15:30 15:37"),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00", "2026-10-03T15:30 2026-10-04T15:15"),
    ("Asia/Kathmandu", "0 0 * * *", "2026-11-25T00:00", "2026-11-25T18:15 2026-11-26T18:15"),
    ("Antarctica/Troll", "30 1,2 * * *", "2026-03-28T12:00", "2026-03-29T01:00 23:30"),
    ("Antarctica/Troll", "30 * * * *", "2026-10-24T23:00", "2026-10-24T23:30 2026-10-25T00:30 01:30 02:30 03:30"),
    ("Pacific/Apia", "0 12 * * *", "2011-12-29T00:00", "2011-12-29T22:00 2011-12-30T10:00 22:00"),
    ("Pacific/Apia", "0 */12 * * *", "2011-12-29T21:00", "2011-12-29T22:00 2011-12-30T10:00 22:00"),
    # A country that has given up its changes.
    ("Asia/Amman", "0 12 * * *", "2022-10-27T00:00", "2022-10-27T09:00 2022-10-28T09:00 2022-10-29T09:00"),
    # Far away: the rule of the zone goes on, and the last year ends quietly.
    (AMSTERDAM, "0 12 1 7 *", "2500-01-01T00:00", "2500-07-01T10:00 2501-07-01T10:00"),
    ("UTC", "0 0 1 1 *", "0001-01-01T00:00", "1971-01-01T00:00"),
]  # fmt: skip


def read(written: str) -> list[datetime]:
    """Instants in UTC; one without a date has that of the one before it."""
    found, date = [], ""
    for word in written.split():
        date = word.partition("T")[0] if "T" in word else date
        found.append(utc(word if "T" in word else f"{date}T{word}"))
    return found


@pytest.mark.parametrize(("zone", "expression", "after", "expected"), VECTORS)
def test_a_cron_expression_is_due_at_these_instants(zone: str, expression: str, after: str, expected: str) -> None:
    slots = read(expected)
    trigger = CronTrigger(expression, ZoneInfo(zone))

    assert list(trigger.slots(utc(after), count=len(slots))) == slots
    assert list(trigger.slots(utc(after), until=slots[-1])) == slots


def test_after_the_last_year_there_are_no_slots() -> None:
    for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
        for expression in ("0 0 * * *", "*/30 * * * *", "0 0 29 2 *"):
            assert len(list(CronTrigger(expression, ZoneInfo(zone)).slots(utc("9999-12-30T00:00")))) < 100
    assert list(CronTrigger("0 0 1 1 *", ZoneInfo("UTC")).slots(datetime.max.replace(tzinfo=UTC))) == []
    decade = IntervalTrigger(timedelta(days=3660), utc("2026-11-25T00:00"))
    assert list(decade.slots(utc("9995-01-01T00:00")))[1:] == []
    assert decade.next_slot(datetime.max.replace(tzinfo=UTC)) is None


def test_slots_missed_in_an_outage_are_those_between_its_ends() -> None:
    missed = list(
        CronTrigger("*/5 * * * *", ZoneInfo("UTC")).slots(utc("2026-11-25T00:01"), until=utc("2026-11-25T06:01"))
    )

    assert len(missed) == 72
    assert [f"{slot:%H:%M}" for slot in missed[-10:]] == [
        "05:15",
        "05:20",
        "05:25",
        "05:30",
        "05:35",
        "05:40",
        "05:45",
        "05:50",
        "05:55",
        "06:00",
    ]


def test_bounds_are_part_of_what_is_due() -> None:
    trigger = CronTrigger("0 * * * *", ZoneInfo("UTC"), utc("2026-11-25T10:00"), utc("2026-11-25T12:00"))

    assert list(trigger.slots(utc("2020-01-01T00:00"))) == read("2026-11-25T10:00 11:00 12:00")
    assert list(trigger.slots(utc("2026-11-25T10:00"))) == read("2026-11-25T11:00 12:00")
    assert trigger.next_slot(utc("2026-11-25T12:00")) is None
    leap_day = CronTrigger("0 0 29 2 *", ZoneInfo("UTC"), end=utc("2027-01-01T00:00"))
    assert leap_day.next_slot(utc("2026-11-25T12:00")) is None


@pytest.mark.parametrize("late", ["01:10", "00:00", "02:00"])
def test_a_bound_in_a_repeated_hour_takes_nothing_from_it_and_adds_nothing(late: str) -> None:
    start = utc(f"2026-10-25T{late}")
    trigger = CronTrigger("*/10 * * * *", ZoneInfo(AMSTERDAM), start)

    assert list(trigger.slots(utc("2026-01-01T00:00"), count=20)) == [
        start + timedelta(minutes=10 * n) for n in range(20)
    ]


def test_an_interval_is_counted_from_its_start_whenever_it_is_asked_for() -> None:
    trigger = IntervalTrigger(timedelta(hours=6), utc("2026-11-25T01:00"))
    expected = read("2026-11-25T01:00 07:00 13:00 19:00 2026-11-26T01:00")

    assert list(trigger.slots(utc("2026-01-01T00:00"), count=5)) == expected
    for asked in ("2026-11-25T11:30", "2026-11-25T12:59:59.999999", "2026-11-25T07:01:30"):
        assert trigger.next_slot(utc(asked)) == utc("2026-11-25T13:00")
    assert trigger.next_slot(utc("2026-11-25T13:00")) == utc("2026-11-25T19:00")


def test_an_interval_is_elapsed_time_across_a_clock_change() -> None:
    start = datetime(2026, 3, 28, 9, tzinfo=ZoneInfo(AMSTERDAM))
    slots = list(IntervalTrigger(timedelta(hours=24), start).slots(utc("2026-03-28T00:00"), count=3))

    assert slots == read("2026-03-28T08:00 2026-03-29T08:00 2026-03-30T08:00")
    assert [slot.astimezone(start.tzinfo).hour for slot in slots] == [9, 10, 10]


def test_a_long_interval_is_due_however_often_programs_restart() -> None:
    start = utc("2026-11-01T00:30")
    trigger = IntervalTrigger(timedelta(days=7), start, start + timedelta(days=30))
    fired = [
        slot
        for hour in range(24 * 31)
        for slot in trigger.slots(start + timedelta(hours=hour), until=start + timedelta(hours=hour + 1))
    ]

    assert fired == [start + timedelta(days=7 * number) for number in (1, 2, 3, 4)]


def test_a_date_is_due_once() -> None:
    trigger = DateTrigger(datetime(2026, 11, 25, 9, tzinfo=ZoneInfo(AMSTERDAM)))

    assert list(trigger.slots(utc("2026-11-25T07:59:59"))) == [utc("2026-11-25T08:00")]
    assert list(trigger.slots(utc("2026-11-25T08:00"))) == []


def test_what_a_trigger_says_does_not_depend_on_the_zone_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for zone in ("UTC", AMSTERDAM, "Australia/Lord_Howe"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            for named, expression, after, expected in VECTORS:
                slots = read(expected)
                assert list(CronTrigger(expression, ZoneInfo(named)).slots(utc(after), count=len(slots))) == slots
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_without_zone_is_refused() -> None:
    trigger = CronTrigger("0 3 * * *", ZoneInfo("UTC"))
    with pytest.raises(InvalidInputError, match=r"^after: .* has no time zone"):
        trigger.slots(datetime(2026, 11, 25))  # noqa: DTZ001 - what is refused
    with pytest.raises(InvalidInputError, match=r"^start_date: .* has no time zone"):
        IntervalTrigger(timedelta(hours=1), datetime(2026, 11, 25))  # noqa: DTZ001 - as above


# Properties.

EXPRESSIONS = ("30 2 * * *", "*/15 * * * *", "0,30 0-4 * * *", "*/7 1-3 * * 0", "15 */2 * * *", "59 23 31 * 6")


def test_every_clock_change_of_every_zone_is_as_a_clock_on_the_wall_shows_it() -> None:
    """The changes of 2024 to 2030; no slot lost or doubled from any of the minutes around them."""
    checked = 0
    for zone, change in list_changes(utc("2024-01-01T00:00"), utc("2031-01-01T00:00")):
        minutes = walls(zone, change - timedelta(hours=8), change + timedelta(hours=5))
        begin = change - timedelta(hours=4)
        for expression in EXPRESSIONS:
            expected = [slot for slot in watch(expression, minutes) if slot > begin]
            trigger = CronTrigger(expression, zone)
            assert list(trigger.slots(begin, until=minutes[-1][0])) == expected, (zone, change, expression)
            for hours in (-1, -0.5, 0, 0.4, 1, 2):
                cut = change + timedelta(hours=hours)
                later = next((slot for slot in expected if slot > cut), None)
                if later is not None:
                    assert trigger.next_slot(cut) == later, (zone, change, expression, cut)
        checked += 1
    assert checked > 100


def terms(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda both: f"{min(both)}-{max(both)}")
    long_span = (
        st.tuples(number, number).filter(lambda both: both[0] < both[1]).map(lambda both: f"{both[0]}-{both[1]}")
    )
    step = st.integers(1, high)
    return st.one_of(
        st.just("*"),
        st.lists(number.map(str), min_size=1, max_size=3).map(",".join),
        span,
        st.tuples(st.one_of(st.just("*"), long_span), step).map(lambda both: f"{both[0]}/{both[1]}"),
    )


CRON = st.tuples(terms(0, 59), terms(0, 23), st.just("*") | terms(1, 28), st.just("*"), st.just("*") | terms(0, 7)).map(
    " ".join
)
ZONES = st.sampled_from(
    [AMSTERDAM, "America/Santiago", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca", "Asia/Gaza", "UTC"]
).map(ZoneInfo)
INSTANTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it


@settings(deadline=None)
@given(expression=CRON, zone=ZONES, after=INSTANTS, cut=st.integers(0, 29))
def test_slots_are_the_same_from_wherever_they_are_asked_for(
    expression: str, zone: ZoneInfo, after: datetime, cut: int
) -> None:
    trigger = CronTrigger(expression, zone)
    slots = list(trigger.slots(after, count=30))

    assert all(one < other for one, other in pairwise([after, *slots]))
    assert [after, *slots][cut + 1 :] == list(trigger.slots([after, *slots][cut], count=30 - cut))
    between = slots[cut] - timedelta(microseconds=1)
    assert trigger.next_slot(max(after, between)) == slots[cut if between >= after else 0]
    stepped = []
    for _ in range(30):
        after = trigger.next_slot(after) or after
        stepped.append(after)
    assert stepped == slots


@settings(deadline=None, max_examples=30)
@given(expression=CRON, zone=ZONES, day=st.integers(0, 2500), near=st.booleans())
def test_slots_are_what_a_clock_on_the_wall_shows(expression: str, zone: ZoneInfo, day: int, near: bool) -> None:
    begin = utc("2024-01-01T00:00") + timedelta(days=day)
    if near:  # around a change, if there is one soon
        later = islice((begin + timedelta(days=n) for n in range(200)), 200)
        offset = begin.astimezone(zone).utcoffset()
        begin = next((one for one in later if one.astimezone(zone).utcoffset() != offset), begin) - timedelta(
            days=1, hours=6
        )
    minutes = walls(zone, begin - timedelta(hours=4), begin + timedelta(hours=36))
    expected = [slot for slot in watch(expression, minutes) if slot > begin]

    assert list(CronTrigger(expression, zone).slots(begin, until=minutes[-1][0])) == expected


@given(every=st.integers(1, 3660 * 86_400), start=INSTANTS, after=INSTANTS, times=st.integers(1, 20))
def test_an_interval_never_drifts(every: int, start: datetime, after: datetime, times: int) -> None:
    trigger = IntervalTrigger(timedelta(seconds=every), start)
    first = after
    for _ in range(times):
        before, after = after, trigger.next_slot(after) or after
        assert after > before
        assert (after - start) % trigger.every == timedelta()
        assert before < start or before == first or after - before == trigger.every
