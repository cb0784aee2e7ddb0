"""What little one queue has to do goes before the answers of a busy one, which lose half of their time at most.

Time passes only as it is waited for, so nothing here depends on how fast a machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batching import IN_A_TURN, Batcher
from consumers.precedence import FEW, LONGEST, Precedence
from orchestrator.shares import working_for
from orchestrator.workflow import TASK_QUEUE

T = TypeVar("T")


class Skipping(selectors.DefaultSelector):
    """Skips the time until the next timer. Where there is none, nothing would ever go on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        assert found or timeout is not None, "all wait for each other"
        self.now += timeout or 0.0
        return found


def run(main: Coroutine[None, None, T]) -> T:
    """Run a coroutine in skipped time."""
    selector = Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


class Statement:
    """Answers each number with its double after a while, and notes when it was called."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, numbers: list[int]) -> list[int]:
        assert numbers
        await asyncio.sleep(self._seconds)
        return [number * 2 for number in numbers]


async def work(batches: Batcher[int, int], queue: str, calls: int, pause: float = 0.0) -> list[float]:
    """Make one call after the other; return when each was answered."""
    working_for.set(queue)
    answered = []
    for number in range(calls):
        assert await batches(number) == 2 * number
        answered.append(now())
        if pause:
            await asyncio.sleep(pause)
    return answered


@given(
    workers=st.dictionaries(
        st.sampled_from(["default", "other", "seldom", TASK_QUEUE]), st.integers(1, 40), min_size=1, max_size=4
    ),
    calls=st.integers(1, 5),
    seconds=st.floats(0.001, 0.2),
    pause=st.floats(0.0, 0.1),
    largest=st.integers(1, 20),
    cancelled=st.sets(st.integers(0, 159)),
)
def test_whatever_queues_do_every_call_is_answered(
    workers: dict[str, int], calls: int, seconds: float, pause: float, largest: int, cancelled: set[int]
) -> None:
    async def main() -> None:
        precedence = Precedence()
        batchers = [
            Batcher(Statement(seconds), at_once=count, largest=largest, precedence=precedence) for count in (2, 3)
        ]
        tasks = [
            asyncio.create_task(work(batchers[number % 2], queue, calls, pause))
            for queue, count in workers.items()
            for number in range(count)
        ]
        await asyncio.sleep(seconds * 1.5)
        for number in cancelled.intersection(range(len(tasks))):
            tasks[number].cancel()
        for number, outcome in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            assert isinstance(outcome, list) or (number in cancelled and isinstance(outcome, asyncio.CancelledError))

    run(main())


@given(
    pieces=st.lists(st.floats(0.0001, 0.02), min_size=1, max_size=50),
    renewed=st.floats(0.001, LONGEST / 2),
    queues=st.integers(1, 3),
)
def test_a_busy_queue_has_half_of_its_time_however_much_goes_before_it(
    pieces: list[float], renewed: float, queues: int
) -> None:
    async def main() -> None:
        precedence = Precedence()

        async def go_before(queue: str) -> None:
            precedence.begin(queue)
            while True:
                precedence.begin(queue)
                await asyncio.sleep(renewed)
                precedence.end(queue)

        others = [asyncio.create_task(go_before(f"seldom {number}")) for number in range(queues)]
        for _ in range(FEW + 1):
            precedence.begin("default")
        await asyncio.sleep(0)
        began = now()
        for piece in pieces:
            async with precedence.turn("default"):
                await asyncio.sleep(piece)
        waited = now() - began - sum(pieces)
        assert 0 < waited <= LONGEST + sum(pieces) + 0.001
        for other in others:
            other.cancel()

    run(main())


def measure_wait(at_work: dict[str, int], queue: str, *, since: float = 0.0) -> float:
    """Return for how many seconds a queue waits for its turn, after so much has been at work for so long."""

    async def main() -> float:
        precedence = Precedence()
        for name, count in at_work.items():
            for _ in range(count):
                precedence.begin(name)
        await asyncio.sleep(since)
        began = now()
        async with precedence.turn(queue):
            return now() - began

    return run(main())


def test_a_busy_queue_waits_for_one_with_little_at_work_and_for_no_other() -> None:
    busy = FEW + 1
    assert measure_wait({"default": busy, "seldom": FEW}, "default") >= LONGEST
    assert measure_wait({"default": busy, "seldom": FEW}, "seldom") == 0
    assert measure_wait({"default": busy, "other": busy}, "default") == 0
    assert measure_wait({"default": FEW, "other": 1}, "default") == 0
    assert measure_wait({"default": busy, TASK_QUEUE: 1}, "default") == 0
    assert measure_wait({"default": busy}, "default") == 0


def test_what_takes_long_goes_before_nothing_any_more() -> None:
    assert measure_wait({"default": FEW + 1, "seldom": 1}, "default", since=2 * LONGEST) == 0


@pytest.mark.parametrize("line", [("default", "default"), ("default", "other", "default", "other")])
def test_nothing_waits_for_what_stands_behind_it_in_the_line(line: tuple[str, ...]) -> None:
    async def main() -> None:
        precedence = Precedence()
        for queue in line:
            for _ in range(FEW):
                precedence.begin(queue)

        async def pass_on(queue: str) -> None:
            async with precedence.turn(queue):
                # Meanwhile the others come into the line. Then a queue has little at work, which waits there for its next part.
                await asyncio.sleep(0)
                for _ in range(FEW):
                    precedence.end(queue)

        began = now()
        await asyncio.gather(*(pass_on(queue) for queue in line))
        assert now() == began

    run(main())


async def test_a_step_goes_on_from_its_claim_to_its_outcome_while_answers_of_a_busy_queue_wait() -> None:
    order: list[str] = []
    may_claim, may_store, is_stored = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def claim(numbers: list[int]) -> list[int]:
        await may_claim.wait()
        return numbers

    async def store(numbers: list[int]) -> list[int]:
        if len(numbers) > FEW:
            await may_store.wait()
            is_stored.set()
        return numbers

    precedence = Precedence(longest=60)
    claims = Batcher(claim, at_once=2, largest=50, precedence=precedence)
    outcomes = Batcher(store, at_once=3, largest=50, precedence=precedence)

    async def step(queue: str) -> None:
        working_for.set(queue)
        await claims(1)
        # As a step's code does, which is a task of its own.
        await asyncio.wait([asyncio.create_task(asyncio.sleep(0))])
        await outcomes(1)
        order.append(queue)

    async def end_step(queue: str) -> None:
        working_for.set(queue)
        await outcomes(1)
        order.append(queue)

    busy = [asyncio.create_task(end_step("default")) for _ in range(40)]
    await asyncio.sleep(0)
    seldom = asyncio.create_task(step("seldom"))
    may_store.set()
    await is_stored.wait()
    may_claim.set()
    await asyncio.gather(seldom, *busy)
    assert order[0] == "seldom"


async def test_one_part_of_the_answers_is_passed_on_in_a_turn_however_many_statements_are_answered() -> None:
    answered: list[int] = []

    async def store(numbers: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return numbers

    batches = Batcher(store, at_once=3, largest=20)

    async def call(number: int) -> None:
        await batches(number)
        answered.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(100)]
    most, before = 0, 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        most, before = max(most, len(answered) - before), len(answered)
    assert 0 < most <= FEW + IN_A_TURN
