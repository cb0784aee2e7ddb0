"""The log of all processes read from a position on: nothing is left out, whatever commits in which order."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.db.notices import Change, Notice, listen, notify
from orchestrator.db.processes import feed
from orchestrator.db.session import Database
from orchestrator.engine.position import Position
from orchestrator.errors import InvalidInputError
from orchestrator.messages import ProcessEvent, StepEvent
from orchestrator.services.feed import EventFilter, read_now
from orchestrator.services.pause import set_paused
from tests.integration.log_rows import Log
from tests.integration.waiting import until


@pytest.fixture
def log(database: Database) -> Log:
    """Provide the log of a database."""
    return Log(database)


def numbers(events: list[ProcessEvent]) -> list[int]:
    return [one.sequence for one in events]


async def test_an_entry_that_commits_after_one_with_a_higher_number_is_read_once(log: Log) -> None:
    """A lower number can become visible after a higher one was sent."""
    one, other = await log.process(), await log.process()
    start = await read_now(log.database.pool)
    async with log.transaction() as slow:
        await log.add(slow, one, 1)
        async with log.transaction() as quick:
            await log.add(quick, other, 1)
        page = await log.read(start)
        assert [event.event.process_id for event in page.events] == [other]
        seen = Position.parse(str(page.events[-1].position))
        assert (await log.follow(seen))[0] == []
    for since in (seen, page.position):
        events, then = await log.follow(since)
        assert [event.process_id for event in events] == [one]
        assert (await log.follow(then))[0] == []


async def test_what_is_rolled_back_or_stays_open_stalls_nothing(log: Log) -> None:
    process_id = await log.process()
    start = await read_now(log.database.pool)
    async with log.transaction() as still_open:
        await log.add(still_open, await log.process(), 1)
        with pytest.raises(ZeroDivisionError):
            async with log.transaction() as failing:
                await log.add(failing, process_id, 1)
                raise ZeroDivisionError
        async with log.transaction() as good:
            await log.add(good, process_id, 1, 2)
        events, _ = await log.follow(start)
        assert numbers(events) == [1, 2]


async def test_events_are_in_the_order_of_the_log_when_transactions_had_to_wait(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction takes its number, waits for the process, and stores what comes after a transaction with a higher number."""
    process_id = await log.process()
    start = await read_now(log.database.pool)
    async with log.transaction() as early:
        async with log.transaction() as late:
            await log.add(late, process_id, 1, 2)
        await log.add(early, process_id, 3)
    assert numbers((await log.follow(start))[0]) == [1, 2, 3]
    monkeypatch.setattr(feed, "PAGE", 1)
    seen = 0
    for number in numbers((await log.follow(start))[0]):
        assert number <= seen + 1, "none comes before the one that precedes it; repetitions are harmless"
        seen = max(seen, number)
    assert seen == 3


async def test_a_backlog_is_read_in_pages_and_can_be_continued_from_each_event(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 7)
    first, second = await log.process(), await log.process()
    start = await read_now(log.database.pool)
    for number in range(1, 21):
        async with log.transaction() as connection:
            await log.add(connection, first, number)
            await log.add(connection, second, number)
    expected = {(one, number) for one in (first, second) for number in range(1, 21)}
    position, seen = start, []
    while True:
        page = await log.read(position)
        for event in page.events:
            seen.append((event.event.process_id, event.event.sequence))
            rest = {(one.process_id, one.sequence) for one in (await log.follow(event.position))[0]}
            assert rest | set(seen) == expected
        position = page.position
        if page.is_last:
            break
    assert sorted(seen) == sorted(expected), "each one once"


async def test_one_transaction_with_more_than_a_page_is_read_whole(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 3)
    process_id = await log.process()
    start = await read_now(log.database.pool)
    async with log.transaction() as connection:
        await log.add(connection, process_id, *range(1, 11))
    assert numbers([one.event for one in (await log.read(start)).events]) == list(range(1, 11))


async def test_events_are_those_of_the_messages(log: Log) -> None:
    subscription_id, other = uuid4(), uuid4()
    state = {
        "subscription": {"subscription_id": str(subscription_id)},
        "ports": [{"subscription_id": str(other)}],
        "x": [1],
    }
    process_id = await log.process("create_port", state)
    start = await read_now(log.database.pool)
    async with log.transaction() as connection:
        await log.add(connection, process_id, 1, kind="process")
        await log.add(connection, process_id, 2)
    created, step = (await log.follow(start))[0]
    assert created.model_dump(mode="json") == {
        "process_id": str(process_id),
        "workflow": "create_port",
        "target": "SYSTEM",
        "is_task": False,
        "status": "success",
        "sequence": 1,
        "at": "2026-11-26T05:00:00Z",
        "user": "ana",
        "subscription_ids": sorted(map(str, (subscription_id, other)), key=[str(other), str(subscription_id)].index),
    }
    assert isinstance(step, StepEvent)
    assert (step.step, step.position, step.attempt) == ("Configure", 4, 2)


async def test_a_reader_gets_only_what_it_has_asked_for(log: Log) -> None:
    subscription_id = uuid4()
    one = await log.process("a")
    two = await log.process("b", {"subscription_id": str(subscription_id)})
    start = await read_now(log.database.pool)
    async with log.transaction() as connection:
        await log.add(connection, one, 1)
        await log.add(connection, two, 1)
    for wanted, expected in (
        (EventFilter(process_id=one), [one]),
        (EventFilter(workflow="b"), [two]),
        (EventFilter(subscription_id=subscription_id), [two]),
        (EventFilter(process_id=one, workflow="b"), []),
    ):
        assert [event.process_id for event in (await log.follow(start, wanted))[0]] == expected


async def test_a_position_in_the_future_is_refused_and_restored_entries_are_not_sent_for_ever(log: Log) -> None:
    now = await read_now(log.database.pool)
    with pytest.raises(InvalidInputError, match="restored"):
        await log.read(Position(now.below + 1_000_000))
    process_id = await log.process()
    await log.database.pool.execute(
        "INSERT INTO process_steps (process_id, sequence, kind, name, attempt, status, delta, author, started_at, finished_at,"
        " txid) VALUES ($1, 1, 'step', 'x', 1, 'success', '{}', 'ana', now(), now(), $2)",
        process_id,
        now.below + 1_000_000,
    )
    assert (await log.follow(now))[0] == []


async def _count_read(log: Log, since: Position, process_id: UUID | None = None) -> float:
    """Return how many entries of the log the statement looks at."""
    plan = await log.database.pool.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {feed._READ[process_id is not None, False]}",
        since.below,
        since.open,
        feed.PAGE,
        process_id,
        None,
    )

    def count(node: dict[str, Any]) -> float:
        own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "process_steps" in str(node) else 0
        is_scan = node.get("Relation Name") == "process_steps"
        return (own * node["Actual Loops"] if is_scan else 0) + sum(count(child) for child in node.get("Plans", []))

    return count(json.loads(plan)[0]["Plan"])


async def test_a_page_costs_what_was_committed_since_however_large_the_log_and_however_old_the_oldest_transaction(
    log: Log,
) -> None:
    start = await read_now(log.database.pool)
    many, few = await log.process(), await log.process()
    async with log.transaction() as still_open:
        await still_open.execute("SELECT pg_current_xact_id()")
        for batch in range(10):
            await log.store(many, *range(1 + batch * 1000, 1001 + batch * 1000))
        await log.store(few, 1, 2, 3)
        await log.database.pool.execute("ANALYZE process_steps")
        now = await read_now(log.database.pool)
        assert await _count_read(log, now) == 0
        assert await _count_read(log, start, few) < 100, "who follows one process reads its log, not everybody's"


async def test_changes_without_an_event_are_heard_after_the_commit(database: Database) -> None:
    heard: asyncio.Queue[Notice] = asyncio.Queue()
    ready, stopping = asyncio.Event(), asyncio.Event()
    listening = asyncio.create_task(listen(database, heard.put_nowait, ready.set, stopping))
    await asyncio.wait_for(ready.wait(), 60)
    async with database.transaction() as session:
        await set_paused(session, True, "ana")
        assert heard.empty()
    assert await asyncio.wait_for(heard.get(), 60) == Notice(Change.ENGINE)
    async with database.transaction() as session:
        await set_paused(session, True, "ana")  # it is already
        await notify(session, Notice(Change.SUBSCRIPTIONS, UUID(int=7)))
    assert await asyncio.wait_for(heard.get(), 60) == Notice(Change.SUBSCRIPTIONS, UUID(int=7))
    await database.pool.execute("SELECT pg_notify('orchestrator', 'something new')")
    await database.pool.execute("DELETE FROM processes")
    assert await asyncio.wait_for(heard.get(), 60) == Notice(Change.PROCESSES)
    stopping.set()
    await asyncio.wait_for(listening, 60)


async def test_a_lost_connection_ends_listening(database: Database) -> None:
    ready = asyncio.Event()
    listening = asyncio.create_task(listen(database, lambda _: None, ready.set, asyncio.Event()))
    await asyncio.wait_for(ready.wait(), 60)
    ended = await database.pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    assert ended == 1
    await until(listening.done, "listening has ended")
    await listening
