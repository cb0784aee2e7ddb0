"""What comes while others are on their way is sent together."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gathering import Gathering, NotSentError

BAD, AWAY = 13, 99


class Server:
    """Answers each number with its double, once it may."""

    def __init__(self, *, at_once: int = 1, largest: int = 10) -> None:
        self.sent: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.on_their_way = self.most = 0
        self.gathering = Gathering(
            self._answer, is_for_all=lambda error: isinstance(error, OSError), at_once=at_once, largest=largest
        )

    def call(self, number: int, patience: float | None = None) -> asyncio.Task[int]:
        """Begin a call."""
        return asyncio.create_task(self.gathering.call(number, patience=patience))

    async def _answer(self, numbers: list[int]) -> list[int]:
        self.sent.append(numbers)
        self.on_their_way += 1
        self.most = max(self.most, self.on_their_way)
        try:
            await asyncio.sleep(0)  # an answer is never there at once
            await self.may_answer.wait()
            if BAD in numbers:
                raise ValueError(f"one of {numbers}")
            if AWAY in numbers:
                raise ConnectionError("away")
            return [number * 2 for number in numbers]
        finally:
            self.on_their_way -= 1


async def test_a_call_that_finds_nothing_on_its_way_is_sent_at_once_and_alone() -> None:
    server = Server()
    server.may_answer.set()
    assert [await server.gathering.call(1), await server.gathering.call(2)] == [2, 4]
    assert server.sent == [[1], [2]]


async def test_what_has_gathered_is_sent_together_but_no_more_than_may_be() -> None:
    server = Server(at_once=2, largest=3)
    calls = [server.call(number) for number in range(1, 8)]
    await asyncio.sleep(0)
    server.may_answer.set()
    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10, 12, 14]
    assert server.sent == [[1], [2], [3, 4, 5], [6, 7]]


async def test_only_the_one_at_fault_fails_unless_the_error_is_for_all() -> None:
    server = Server()
    server.may_answer.set()
    answers = await asyncio.gather(*map(server.call, (1, 2, BAD, 3)), return_exceptions=True)
    assert [str(one) for one in answers] == ["2", "4", f"one of [{BAD}]", "6"]
    server.sent.clear()
    answers = await asyncio.gather(*map(server.call, (1, 2, AWAY, 3)), return_exceptions=True)
    assert [type(one) for one in answers] == [int, ConnectionError, ConnectionError, ConnectionError]
    assert server.sent == [[1], [2, AWAY, 3]]


async def test_when_the_sending_is_cancelled_so_are_all_who_wait_for_it() -> None:
    server = Server()
    calls = [server.call(number) for number in range(3)]
    server.may_answer.set()
    await calls[0]
    server.may_answer.clear()
    (sending,) = server.gathering._tasks

    sending.cancel()

    ended, _ = await asyncio.wait(calls, timeout=60)
    assert ended == set(calls)
    assert [one.cancelled() for one in calls] == [False, True, True]


async def test_a_call_that_is_not_on_its_way_in_time_is_not_sent_and_one_that_is_waits_for_its_answer() -> None:
    server = Server()
    sent, too_late, patient = server.call(1, patience=0.0), server.call(2, patience=0.01), server.call(3, patience=60)
    with pytest.raises(NotSentError):
        await too_late
    server.may_answer.set()
    assert (await sent, await patient) == (2, 6)
    assert server.sent == [[1], [3]]


@given(
    numbers=st.lists(st.sampled_from([*range(10), BAD, AWAY]), max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
    turns=st.integers(0, 5),
    at_once=st.integers(1, 3),
    largest=st.integers(1, 4),
)
def test_whatever_is_cancelled_or_fails_each_call_has_its_own_answer_and_nothing_is_left(
    numbers: list[int], cancelled: set[int], turns: int, at_once: int, largest: int
) -> None:
    async def run() -> None:
        server = Server(at_once=at_once, largest=largest)
        calls = [server.call(number) for number in numbers]
        for turn in range(5):
            if turn == turns:
                server.may_answer.set()
            await asyncio.sleep(0)
        for number in cancelled & set(range(len(calls))):
            calls[number].cancel()
        server.may_answer.set()
        for number, answer in zip(numbers, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, ValueError):
                assert number == BAD
            elif not isinstance(answer, ConnectionError | asyncio.CancelledError):
                assert answer == 2 * number
        assert server.most <= at_once
        assert all(len(sent) <= largest for sent in server.sent)
        before = len(server.sent)
        free = [server.call(1) for _ in range(at_once)]
        assert await asyncio.gather(*free) == [2] * at_once
        assert server.sent[before:] == [[1]] * at_once, "every place is free again"

    asyncio.run(run())
