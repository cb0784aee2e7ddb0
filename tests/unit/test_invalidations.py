"""The messages by which a user interface learns what it must fetch again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from orchestrator.api.invalidations import EVERYTHING, MOST_WAITING, Item, Kind, Waiting, message_of
from orchestrator.db.notices import Change, Notice
from orchestrator.engine.position import Position
from orchestrator.messages import ProcessEvent, StepEvent
from orchestrator.services.feed import FeedEvent

PROCESS, SUBSCRIPTION = UUID(int=1), UUID(int=2)


def event(process_id: UUID = PROCESS, *, of_step: bool = False, subscriptions: tuple[UUID, ...] = ()) -> FeedEvent:
    common = {
        "process_id": process_id,
        "workflow": "w",
        "target": "CREATE",
        "is_task": False,
        "status": "running",
        "sequence": 1,
        "at": datetime(2026, 11, 26, tzinfo=UTC),
        "user": "ana",
        "subscription_ids": list(subscriptions),
    }
    if of_step:
        return FeedEvent(StepEvent(**common, step="One", position=1, attempt=1), 5, Position(6))
    return FeedEvent(ProcessEvent(**common), 5, Position(6))


def texts(items: list[Item]) -> list[dict[str, str]]:
    messages = [json.loads(message_of(one)) for one in items]
    assert {one["name"] for one in messages} == {"invalidateCache"}
    return [one["value"] for one in messages]


def test_a_process_event_makes_its_lists_itself_and_the_counts_stale() -> None:
    waiting = Waiting()
    waiting.take_events([event()])
    assert texts(waiting.pop()) == [
        {"type": "processes", "id": "LIST"},
        {"type": "processes", "id": str(PROCESS)},
        {"type": "processStatusCounts"},
    ]
    assert waiting.pop() == []


def test_an_event_of_a_process_with_subscriptions_makes_them_and_their_lists_stale() -> None:
    waiting = Waiting()
    waiting.take_events([event(of_step=True, subscriptions=(SUBSCRIPTION,))])
    assert texts(waiting.pop()) == [
        {"type": "processes", "id": "LIST"},
        {"type": "processes", "id": str(PROCESS)},
        {"type": "subscriptions", "id": str(SUBSCRIPTION)},
        {"type": "subscriptions"},
    ]


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (Notice(Change.ENGINE), [{"type": "engineStatus"}]),
        (Notice(Change.PRODUCTS), [{"type": "metadataProducts"}]),
        (Notice(Change.CONSUMERS), [{"type": "workerStatus"}]),
        (
            Notice(Change.PROCESSES),
            [{"type": "processes"}, {"type": "processes", "id": "LIST"}, {"type": "processStatusCounts"}],
        ),
        (
            Notice(Change.SUBSCRIPTIONS, SUBSCRIPTION),
            [{"type": "subscriptions", "id": str(SUBSCRIPTION)}, {"type": "subscriptions"}],
        ),
    ],
)
def test_changes_without_an_event_make_stale_what_they_name(notice: Notice, expected: list[dict[str, str]]) -> None:
    waiting = Waiting()
    waiting.take_notice(notice)
    assert texts(waiting.pop()) == expected


def test_what_waits_for_a_slow_reader_is_bounded_and_leaves_nothing_out() -> None:
    waiting = Waiting()
    for _ in range(10):
        waiting.take_events([event(uuid4()) for _ in range(1000)])
    items = waiting.pop()
    assert len(items) <= MOST_WAITING
    assert {(Kind.PROCESSES, None), (Kind.PROCESSES, "LIST"), (Kind.PROCESS_COUNTS, None)} <= set(items)


def test_after_a_gap_everything_is_stale() -> None:
    waiting = Waiting()
    waiting.take_gap()
    assert waiting.pop() == list(EVERYTHING)
