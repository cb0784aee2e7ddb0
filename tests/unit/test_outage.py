"""How often the log says that a server is away."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator import outage
from orchestrator.outage import Outage

LOST, BACK = "it is away", "it is back"


class Clock:
    """The time that an outage sees."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Provide the clock."""
    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


def say(clock: Clock, one: Outage, *steps: tuple[float, str]) -> list[tuple[float, str]]:
    """Return what is logged, and when, of tries that fail (``-``) or succeed (``+``) after so many seconds each."""
    start, found = clock.now, []
    for seconds, what in steps:
        clock.now += seconds
        with capture_logs() as logs:
            one.report(OSError("no route")) if what == "-" else one.over()
        found += [(clock.now - start, entry["event"]) for entry in logs]
    return found


async def test_it_is_said_once_then_at_growing_intervals_and_when_it_is_back(clock: Clock) -> None:
    said = say(clock, Outage(LOST, BACK), *[(1, "-")] * 100, (1, "+"), (1, "+"))
    assert said == [*((at, LOST) for at in (1, 11, 31, 71)), (101, BACK)]


async def test_a_reminder_says_for_how_long_and_after_how_many_tries(clock: Clock) -> None:
    one = Outage(LOST, BACK, part="publisher")
    with capture_logs() as logs:
        one.report(OSError("no route"), queue="x")
        clock.now += 12
        one.report(OSError("no route"))
        one.over()
    first, second, third = logs
    assert first == {"event": LOST, "log_level": "warning", "part": "publisher", "queue": "x", "error": "no route"}
    assert {name: second[name] for name in ("seconds", "tries")} == {"seconds": 12, "tries": 2}
    assert third == {"event": BACK, "log_level": "warning", "part": "publisher", "seconds": 12.0}


async def test_reminders_come_every_ten_minutes_at_last(clock: Clock) -> None:
    said = say(clock, Outage(LOST, BACK), *[(5, "-")] * 2000)
    gaps = [round(after[0] - before[0]) for before, after in itertools.pairwise(said)]
    assert gaps[:6] == [10, 20, 40, 80, 160, 320]
    assert set(gaps[6:]) == {600}


async def test_a_connection_that_is_lost_again_at_once_is_not_news_each_time(clock: Clock) -> None:
    said = say(clock, Outage(LOST, BACK), *[(1, "-"), (1, "+")] * 20)
    assert [event for _, event in said] == [LOST, BACK] * 3
    assert [at for at, event in said if event == LOST] == [1, 11, 31]


async def test_an_outage_after_a_quiet_time_is_news(clock: Clock) -> None:
    steps: list[Any] = [(1, "-"), (1, "+"), (outage.STABLE_AFTER + 1, "-"), (1, "+")]
    assert [event for _, event in say(clock, Outage(LOST, BACK), *steps)] == [LOST, BACK, LOST, BACK]


async def test_one_whose_end_nothing_notices_is_news_when_it_comes_again(clock: Clock) -> None:
    steps: list[Any] = [(1, "-"), (1, "-"), (outage.STABLE_AFTER + 1, "-")]
    assert say(clock, Outage(LOST, None), *steps) == [(1, LOST), (outage.STABLE_AFTER + 3, LOST)]
