"""What gathers while a statement is under way shares the next one."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batching import Batcher
from orchestrator.shares import working_for


class Statement:
    """Answers each number with its double; holds the first call until told to go on."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.called = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.sent.append(numbers)
        self.called.set()
        await self.may_answer.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        if 0 in numbers:
            raise asyncpg.ConnectionDoesNotExistError("away")
        return [number * 2 for number in numbers]


async def test_on_an_idle_system_a_call_is_sent_at_once_and_alone() -> None:
    statement = Statement()
    statement.may_answer.set()
    batches = Batcher(statement, at_once=1, largest=10)
    assert [await batches(1), await batches(2)] == [2, 4]
    assert statement.sent == [[1], [2]]


async def test_what_gathers_shares_the_next_statement_up_to_the_largest() -> None:
    statement = Statement()
    batches = Batcher(statement, at_once=1, largest=3)
    calls = [asyncio.create_task(batches(number)) for number in range(1, 9)]
    await statement.called.wait()
    statement.may_answer.set()
    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [len(batch) for batch in statement.sent] == [3, 3, 2]
    assert sorted(number for batch in statement.sent for number in batch) == list(range(1, 9))


async def test_only_the_one_at_fault_hears_of_an_error() -> None:
    statement = Statement()
    statement.may_answer.set()
    batches = Batcher(statement, at_once=1, largest=10)
    answers = await asyncio.gather(*(batches(number) for number in (1, 13, 2)), return_exceptions=True)
    assert answers[0] == 2
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 4


async def test_a_lost_connection_is_everybodys_and_is_not_repeated_here() -> None:
    statement = Statement()
    statement.may_answer.set()
    batches = Batcher(statement, at_once=1, largest=10)
    answers = await asyncio.gather(*(batches(number) for number in (1, 0, 2)), return_exceptions=True)
    assert all(isinstance(answer, asyncpg.ConnectionDoesNotExistError) for answer in answers)
    assert statement.sent == [[1, 0, 2]]


async def test_when_a_statement_is_cancelled_so_are_all_who_wait_for_it() -> None:
    statement = Statement()
    batches = Batcher(statement, at_once=1, largest=10)
    calls = [asyncio.create_task(batches(number)) for number in (1, 2)]
    await statement.called.wait()
    (sender,) = batches._senders

    sender.cancel()

    ended, _ = await asyncio.wait(calls, timeout=60)
    assert ended == set(calls)
    assert all(one.cancelled() for one in calls)


async def test_a_caller_that_gives_up_does_not_disturb_the_others() -> None:
    statement = Statement()
    batches = Batcher(statement, at_once=1, largest=10)
    first, second = asyncio.create_task(batches(1)), asyncio.create_task(batches(2))
    await statement.called.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    statement.may_answer.set()
    assert await second == 4


async def test_a_call_for_a_queue_that_has_no_statement_under_way_waits_for_no_other_queue() -> None:
    busy, other = Statement(), Statement()
    other.may_answer.set()

    async def run(numbers: list[int]) -> list[int]:
        return await (other if numbers == [7] else busy)(numbers)

    batches = Batcher(run, at_once=1, largest=2)

    async def call(queue: str, number: int) -> int:
        working_for.set(queue)
        return await batches(number)

    calls = [asyncio.create_task(call("default", number)) for number in (1, 2, 3, 4, 5)]
    await busy.called.wait()
    async with asyncio.timeout(5):
        assert await asyncio.create_task(call("seldom", 7)) == 14
    assert not any(one.done() for one in calls)
    busy.may_answer.set()
    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10]
    assert busy.sent == [[1, 2], [3, 4], [5]]


async def test_queues_together_have_no_more_statements_than_one_unless_they_have_none() -> None:
    statement = Statement()
    batches = Batcher(statement, at_once=2, largest=1)

    async def call(queue: str, number: int) -> int:
        working_for.set(queue)
        return await batches(number)

    calls = [asyncio.create_task(call(queue, 1)) for queue in ("default", "default", "default", "seldom", "seldom")]
    await statement.called.wait()
    assert len(statement.sent) == 3
    statement.may_answer.set()
    assert await asyncio.gather(*calls) == [2] * 5


TURNS = 1000
"""Turns of the event loop, after which everything has ended that can end."""


class Work:
    """What leads to a call, unless its number is odd, and waits for room before."""

    def __init__(self, batches: Batcher[int, int]) -> None:
        self._batches = batches
        self.begun: list[int] = []

    async def __call__(self, number: int, queue: str | None = None) -> None:
        working_for.set(queue)
        async with self._batches.room(queue):
            self.begun.append(number)
            await asyncio.sleep(0)
        if number % 2 == 0:
            await self._batches(number)


async def test_work_waits_while_a_whole_statement_of_calls_does_and_goes_on_in_order_as_they_are_sent() -> None:
    statement = Statement()
    batches = Batcher(statement, at_once=1, largest=2)
    calls = [asyncio.create_task(batches(number)) for number in (1, 2, 3, 4, 5)]
    await statement.called.wait()
    work = Work(batches)
    waiting = [asyncio.create_task(work(number)) for number in (2, 4, 6)]
    async with asyncio.timeout(5):
        await asyncio.create_task(work(1, "seldom"))
    assert work.begun == [1]
    assert batches.is_held_up(None)
    assert not batches.is_held_up("seldom")
    statement.may_answer.set()
    await asyncio.gather(*calls, *waiting)
    assert work.begun == [1, 2, 4, 6]
    assert not batches.is_held_up(None)


async def test_work_that_is_cancelled_when_it_may_begin_leaves_its_turn_to_the_next() -> None:
    cancelled: list[asyncio.Task[None]] = []
    called, may_answer = asyncio.Event(), asyncio.Event()

    async def run(numbers: list[int]) -> list[int]:
        called.set()
        if cancelled:
            # In the turn of the event loop in which the first of those that wait was let begin.
            cancelled[0].cancel()
        await may_answer.wait()
        return numbers

    batches = Batcher(run, at_once=1, largest=1)
    calls = [asyncio.create_task(batches(number)) for number in (1, 2)]
    await called.wait()
    work = Work(batches)
    cancelled.append(asyncio.create_task(work(3)))
    other = asyncio.create_task(work(5))
    await asyncio.sleep(0)
    may_answer.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*calls, other)
    assert work.begun == [5]


@given(
    numbers=st.lists(st.integers(14, 40), max_size=40),
    cancelled=st.sets(st.integers(0, 39)),
    turns=st.integers(0, 12),
    largest=st.integers(1, 4),
)
def test_all_work_begins_however_many_of_it_lead_to_no_call_or_are_cancelled(
    numbers: list[int], cancelled: set[int], turns: int, largest: int
) -> None:
    async def run() -> None:
        statement = Statement()
        batches = Batcher(statement, at_once=1, largest=largest)
        calls = [asyncio.create_task(batches(number)) for number in range(20, 20 + 3 * largest)]
        await statement.called.wait()
        work = Work(batches)
        tasks = [asyncio.create_task(work(number)) for number in numbers]
        await asyncio.sleep(0)
        statement.may_answer.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        for number in cancelled.intersection(range(len(tasks))):
            tasks[number].cancel()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert all(one.done() for one in tasks)
        await asyncio.gather(*calls, *tasks, return_exceptions=True)
        assert all(one.cancelled() or one.exception() is None for one in tasks)
        assert not batches.is_held_up(None)

    asyncio.run(run())
