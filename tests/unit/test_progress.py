"""Which commands have left a queue, as the reports of its consumers tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.coordinator.progress import Progress
from orchestrator.db.consumers import Received, Report

QUEUE = "default"
UNPUBLISHED = timedelta(seconds=2)


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def report(reported: float, newest: float | None = None, queue: str = QUEUE) -> Report:
    received = Received({} if newest is None else {queue: at(newest)})
    return Report(frozenset({queue}), at(reported), received)


def observe(progress: Progress, now: float, *reports: Report, ready: int = 5) -> None:
    progress.observe({QUEUE: ready}, reports, at(now), UNPUBLISHED)


def test_without_reports_nothing_is_known_of_a_queue_with_messages() -> None:
    progress = Progress()
    observe(progress, 10)
    assert progress.left_before(QUEUE) is None


def test_a_later_command_that_was_received_shows_what_has_left_once_all_consumers_have_reported_since() -> None:
    progress = Progress()
    observe(progress, 10, report(9, newest=7), report(8))
    assert progress.left_before(QUEUE) is None, "the second one may have received an earlier command since"
    observe(progress, 11, report(11, newest=8), report(8))
    assert progress.left_before(QUEUE) is None
    observe(progress, 12, report(11, newest=8), report(11))
    assert progress.left_before(QUEUE) == at(7)


def test_an_empty_queue_holds_nothing_that_has_had_the_time_to_be_published() -> None:
    progress = Progress()
    observe(progress, 10, ready=0)
    assert progress.left_before(QUEUE) == at(8)


def test_what_has_left_a_queue_does_not_come_back_when_a_consumer_goes() -> None:
    progress = Progress()
    observe(progress, 10, report(9, newest=7))
    observe(progress, 12, report(12, newest=7))
    observe(progress, 13, report(13))
    assert progress.left_before(QUEUE) == at(7)


@pytest.mark.parametrize("newest", [20, 1_000_000])
def test_no_command_is_newer_than_now(newest: float) -> None:
    progress = Progress()
    observe(progress, 10, report(10, newest=newest))
    observe(progress, 11, report(11))
    assert progress.left_before(QUEUE) == at(10)


def test_consumers_of_other_queues_say_nothing() -> None:
    progress = Progress()
    observe(progress, 10, report(1, newest=9, queue="tasks"), report(10, newest=5))
    observe(progress, 12, report(1, newest=9, queue="tasks"), report(12, newest=5))
    assert progress.left_before(QUEUE) == at(5)
