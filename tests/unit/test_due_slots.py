"""Which slots start, which are missed, and when the next is due. The expected instants were worked out by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.due_slots import (
    MissedSlots,
    Verdict,
    compute_due_at,
    find_standing,
    judge_slots,
    may_start,
)
from orchestrator.engine.schedule import MISSED_LIMIT, Missed, Overlap, ScheduleDefinition
from orchestrator.engine.triggers import CronTrigger, DateTrigger, IntervalTrigger, Trigger
from orchestrator.errors import InvalidInputError
from orchestrator.types import ProcessStatus
from tests.unit.wall_clock import utc

ONE = UUID(int=1)
MINUTE = timedelta(minutes=1)


def cron(expression: str, zone: str = "UTC") -> CronTrigger:
    return CronTrigger(expression, ZoneInfo(zone))


def judge(
    trigger: Trigger,
    settled: str,
    now: str,
    missed: Missed = Missed.ONCE,
    limit: int = MISSED_LIMIT,
    jitter: timedelta = timedelta(),
) -> Verdict:
    overlap = Overlap.ALLOW if missed is Missed.ALL else Overlap.SKIP
    schedule = ScheduleDefinition("a", "w", trigger, missed=missed, missed_limit=limit, overlap=overlap, jitter=jitter)
    return judge_slots(ONE, schedule, utc(settled), utc(now))


def test_after_an_outage_of_72_slots_each_policy_starts_its_own_number_of_the_newest() -> None:
    away = (cron("*/5 * * * *"), "2026-11-25T00:01", "2026-11-25T06:01")
    first, newest = utc("2026-11-25T00:05"), utc("2026-11-25T06:00")
    assert judge(*away, Missed.SKIP) == Verdict(MissedSlots(first, newest, 72))
    assert judge(*away, Missed.ONCE) == Verdict(MissedSlots(first, utc("2026-11-25T05:55"), 71), (newest,))
    assert judge(*away, Missed.ALL) == Verdict(
        MissedSlots(first, utc("2026-11-25T05:10"), 62),
        tuple(utc("2026-11-25T05:15") + number * 5 * MINUTE for number in range(10)),
    )
    assert judge(*away, Missed.ALL, limit=100) == Verdict(
        None, tuple(first + number * 5 * MINUTE for number in range(72))
    )


@pytest.mark.parametrize("missed", Missed)
@pytest.mark.parametrize("settled", ["2026-11-25T11:30", "2026-11-25T06:30"], ids=["alone", "after older ones"])
def test_a_slot_that_is_less_than_a_minute_late_starts_whatever_came_before_it(missed: Missed, settled: str) -> None:
    assert judge(cron("0 * * * *"), settled, "2026-11-25T12:00:50", missed).starts[-1] == utc("2026-11-25T12:00")


@pytest.mark.parametrize("settled", ["2026-11-25T11:30", "2026-11-25T06:30"], ids=["alone", "after older ones"])
@pytest.mark.parametrize(("missed", "starts"), [(Missed.SKIP, False), (Missed.ONCE, True), (Missed.ALL, True)], ids=str)
def test_a_slot_that_is_seven_minutes_late_is_missed(missed: Missed, starts: bool, settled: str) -> None:
    verdict = judge(cron("0 * * * *"), settled, "2026-11-25T12:07", missed)
    assert verdict.starts[-1:] == ((utc("2026-11-25T12:00"),) if starts else ())


def test_a_slot_that_is_on_time_makes_up_for_the_missed_ones_before_it() -> None:
    verdict = judge(cron("0 * * * *"), "2026-11-25T00:30", "2026-11-25T06:00:10")
    assert verdict == Verdict(
        MissedSlots(utc("2026-11-25T01:00"), utc("2026-11-25T05:00"), 5), (utc("2026-11-25T06:00"),)
    )


def test_a_slot_that_fell_into_a_short_absence_of_all_programs_starts() -> None:
    assert judge(cron("0 16 * * *"), "2026-11-25T15:59:59", "2026-11-25T16:00:16", Missed.SKIP).starts == (
        utc("2026-11-25T16:00"),
    )


def test_before_a_slot_nothing_starts_and_no_microsecond_early() -> None:
    away = (cron("0 12 * * *"), "2026-11-25T11:00")
    assert judge(*away, "2026-11-25T11:59:59.999999") == Verdict()
    assert judge(*away, "2026-11-25T12:00").starts == (utc("2026-11-25T12:00"),)


def test_when_the_clock_steps_back_nothing_starts_again_and_when_it_steps_on_slots_are_missed() -> None:
    assert judge(cron("0 * * * *"), "2026-11-25T12:00", "2026-11-25T11:00:05") == Verdict()
    assert judge(cron("0 * * * *"), "2026-11-25T12:00", "2026-11-25T12:00:05") == Verdict()
    assert judge(cron("0 * * * *"), "2026-11-25T12:00", "2026-11-25T13:05", Missed.SKIP) == Verdict(
        MissedSlots(utc("2026-11-25T13:00"), utc("2026-11-25T13:00"), 1)
    )


def test_a_paused_schedule_that_is_resumed_makes_up_for_nothing() -> None:
    # The cursor of an enabled schedule is the moment of enabling.
    for missed in Missed:
        assert judge(cron("0 * * * *"), "2026-11-25T14:20", "2026-11-25T14:20", missed) == Verdict()
    assert find_standing(ONE, cron("0 * * * *"), timedelta(), utc("2026-11-25T14:20")).slot == utc("2026-11-25T15:00")


def test_a_start_years_ago_is_not_made_up_for() -> None:
    every_hour = IntervalTrigger(timedelta(hours=1), datetime(2020, 1, 1, tzinfo=UTC))
    assert judge(every_hour, "2026-11-25T10:05", "2026-11-25T11:00", Missed.ALL) == Verdict(
        None, (utc("2026-11-25T11:00"),)
    )


def test_another_zone_counts_from_the_moment_of_the_change() -> None:
    changed = utc("2026-05-19T10:00")
    assert find_standing(ONE, cron("0 21 * * *", "Europe/Berlin"), timedelta(), changed).slot == utc("2026-05-19T19:00")


def test_a_long_interval_starts_however_often_the_programs_are_restarted() -> None:
    # The cursor is all that a restart leaves.
    anchor = utc("2026-11-01T05:00")
    schedule = ScheduleDefinition("a", "w", IntervalTrigger(timedelta(days=7), anchor))
    settled, started = utc("2026-11-01T05:30"), []
    for hour in range(30 * 24):
        for slot in judge_slots(ONE, schedule, settled, utc("2026-11-01T06:00:30") + timedelta(hours=hour)).starts:
            started.append(slot)
            settled = slot
    assert started == [anchor + number * timedelta(days=7) for number in range(1, 5)]


def test_an_interval_keeps_its_phase_however_late_a_slot_was() -> None:
    schedule = ScheduleDefinition("a", "w", IntervalTrigger(timedelta(hours=6), utc("2026-11-25T01:00")))
    settled, started = utc("2026-11-25T00:59"), []
    for now in ("01:00", "07:01:30", "13:00", "19:00"):
        (slot,) = judge_slots(ONE, schedule, settled, utc(f"2026-11-25T{now}")).starts
        started.append(f"{slot:%H:%M}")
        settled = slot
    assert started == ["01:00", "07:00", "13:00", "19:00"]


@pytest.mark.parametrize(
    ("trigger", "count"),
    [
        (
            cron("* * * * *", "Europe/Amsterdam"),
            MissedSlots(utc("2025-11-25T12:01"), utc("2026-11-25T12:00"), 1000, False),
        ),
        (
            IntervalTrigger(timedelta(seconds=60), utc("2025-01-01T00:00")),
            MissedSlots(utc("2025-11-25T12:01"), utc("2026-11-25T12:00"), 525_600),
        ),
        (cron("* * * 12 *"), MissedSlots(utc("2025-12-01T00:00"), utc("2025-12-31T23:58"), 1000, False)),
    ],
    ids=["cron", "interval", "a burst long ago"],
)
def test_a_year_of_minutes_is_not_enumerated(trigger: Trigger, count: MissedSlots) -> None:
    before = time.process_time()
    verdict = judge(trigger, "2025-11-25T12:00", "2026-11-25T12:01")
    assert verdict.missed == count
    assert time.process_time() - before < 0.5  # all of them take five seconds
    assert len(verdict.starts) == 1


def test_jitter_keeps_the_slot_and_is_the_same_everywhere() -> None:
    trigger, jitter = cron("*/5 * * * *"), MINUTE
    # A number worked out once: another one in another program or release would start slots twice or too early.
    standing = find_standing(ONE, trigger, jitter, utc("2026-11-25T12:15"))
    assert standing.slot == utc("2026-11-25T12:20")
    assert standing.due_at == utc("2026-11-25T12:20:33.288629")
    assert judge(trigger, "2026-11-25T12:15", "2026-11-25T12:20:33", jitter=jitter) == Verdict()
    assert judge(trigger, "2026-11-25T12:15", "2026-11-25T12:20:34", jitter=jitter) == Verdict(
        None, (utc("2026-11-25T12:20"),)
    )
    assert find_standing(ONE, trigger, jitter, utc("2026-11-25T12:20")).slot == utc("2026-11-25T12:25")


def test_a_date_is_late_by_the_jitter_at_most_and_past_the_end_a_slot_still_starts() -> None:
    date = DateTrigger(utc("2026-11-25T12:00"))
    standing = find_standing(ONE, date, MINUTE, utc("2026-11-25T11:00"))
    assert standing.slot is not None
    assert standing.due_at is not None
    assert standing.slot < standing.due_at < standing.slot + MINUTE
    ends = IntervalTrigger(timedelta(hours=1), utc("2026-11-25T11:00"), end=utc("2026-11-25T12:00"))
    assert judge(ends, "2026-11-25T11:00", "2026-11-25T12:01", jitter=MINUTE).starts == (utc("2026-11-25T12:00"),)
    assert find_standing(ONE, ends, MINUTE, utc("2026-11-25T12:00")).slot is None


@given(
    schedule=st.uuids(),
    seconds=st.integers(1, 10**7),
    jitter=st.integers(0, 10**9),
)
def test_jitter_never_reaches_the_next_slot(schedule: UUID, seconds: int, jitter: int) -> None:
    slot = utc("2026-11-25T12:00")
    following = slot + timedelta(seconds=seconds)
    due_at = compute_due_at(schedule, timedelta(seconds=jitter), slot, following)
    assert slot <= due_at < following
    assert due_at <= slot + timedelta(seconds=jitter)


EXPRESSIONS = ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15,45 1-4 * * 6,0", "0 0 1 * *"]
ZONES = ["UTC", "Europe/Amsterdam", "Australia/Lord_Howe", "America/Santiago"]
TRIGGERS = st.one_of(
    st.builds(cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.builds(
        IntervalTrigger,
        st.integers(7, 10**5).map(lambda seconds: timedelta(seconds=seconds)),
        st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - Hypothesis adds it
    ),
    st.builds(
        DateTrigger,
        st.datetimes(datetime(2026, 10, 20), datetime(2026, 10, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    ),
)


@settings(max_examples=150)
@given(
    trigger=TRIGGERS,
    missed=st.sampled_from(Missed),
    limit=st.integers(1, 5),
    jitter=st.sampled_from([0, 45, 600, 10**6]),
    steps=st.lists(st.integers(-7200, 20_000) | st.integers(0, 90), max_size=25),
)
def test_each_slot_starts_once_or_is_missed_whatever_the_clock_does(
    trigger: Trigger, missed: Missed, limit: int, jitter: int, steps: list[int]
) -> None:
    overlap = Overlap.ALLOW if missed is Missed.ALL else Overlap.SKIP
    schedule = ScheduleDefinition(
        "a", "w", trigger, missed=missed, missed_limit=limit, overlap=overlap, jitter=timedelta(seconds=jitter)
    )
    begin = now = settled = utc("2026-10-24T20:00")
    started: list[datetime] = []
    missing = 0
    for step in steps:
        now += timedelta(seconds=step)
        while True:  # one start in a transaction
            verdict = judge_slots(ONE, schedule, settled, now)
            if verdict.missed is not None:
                assert verdict.missed.first > settled
                assert verdict.missed.is_exact
                missing += verdict.missed.count
                settled = verdict.missed.last
            if not verdict.starts:
                break
            assert verdict.starts[0] > settled
            assert verdict.starts[0] <= now
            started.append(verdict.starts[0])
            settled = verdict.starts[0]
        standing = find_standing(ONE, trigger, schedule.jitter, settled)
        assert standing.due_at is None or standing.due_at > now
    assert started == sorted(set(started))
    assert len(started) + missing == len(list(trigger.slots(begin, until=settled)))


@pytest.mark.parametrize(
    ("status", "running"),
    [
        (ProcessStatus.CREATED, True),
        (ProcessStatus.RUNNING, True),
        (ProcessStatus.RESUMED, True),
        (ProcessStatus.SUSPENDED, True),
        (ProcessStatus.WAITING, True),
        (ProcessStatus.AWAITING_CALLBACK, True),
        (ProcessStatus.FAILED, False),
        (ProcessStatus.API_UNAVAILABLE, False),
        (ProcessStatus.INCONSISTENT_DATA, False),
        (ProcessStatus.COMPLETED, False),
        (ProcessStatus.ABORTED, False),
    ],
)
def test_only_a_process_that_goes_on_by_itself_or_waits_keeps_later_slots_from_starting(
    status: ProcessStatus, running: bool
) -> None:
    assert may_start(Overlap.SKIP, status) is not running
    assert may_start(Overlap.QUEUE, status) is not running
    assert may_start(Overlap.ALLOW, status)
    assert may_start(Overlap.SKIP, None)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_policies_that_contradict_each_other_are_refused(overlap: Overlap) -> None:
    with pytest.raises(InvalidInputError, match="use overlap 'allow'"):
        ScheduleDefinition("a", "w", cron("* * * * *"), missed=Missed.ALL, overlap=overlap)
