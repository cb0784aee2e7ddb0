"""What a program has few of, shared among step queues; and turns of background work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import shares as shares_module
from orchestrator.shares import LONGEST_REST, Admission, Pace, Shares
from orchestrator.workflow import TASK_QUEUE

QUEUES = ("default", "tasks", "ims")


def take_all(shares: Shares, queue: str | None) -> int:
    taken = 0
    while shares.take(queue):
        taken += 1
    return taken


@pytest.mark.parametrize(
    ("limit", "queues", "first", "second"),
    [
        pytest.param(10, ("tasks", "default"), 8, 2, id="a fifth of ten"),
        pytest.param(1000, ("tasks", "default"), 750, 250, id="a quarter"),
        pytest.param(2, ("tasks", "default"), 1, 1, id="one each"),
        pytest.param(3, ("tasks", "default", "ims"), 1, 1, id="one of three each"),
        pytest.param(10, ("tasks",), 10, 0, id="one queue has all"),
        pytest.param(1, ("tasks", "default"), 1, 0, id="too few to share"),
        pytest.param(10, (), 10, 0, id="no queues"),
    ],
)
def test_a_queue_may_take_all_but_what_is_reserved_for_others(
    limit: int, queues: tuple[str, ...], first: int, second: int
) -> None:
    shares = Shares(limit, queues)
    assert take_all(shares, "tasks") == first
    assert take_all(shares, "default") == second


def test_the_engine_finds_any_free_unit() -> None:
    shares = Shares(4, QUEUES[:2])
    assert take_all(shares, "tasks") == 3
    assert take_all(shares, None) == 1


@given(
    limit=st.integers(1, 12),
    acts=st.lists(
        st.tuples(st.sampled_from(["acquire", "release", "cancel"]), st.sampled_from([*QUEUES, None])), max_size=60
    ),
)
def test_whatever_happens_each_queue_finds_its_share_and_no_unit_is_lost(
    limit: int, acts: list[tuple[str, str | None]]
) -> None:
    async def run() -> None:
        shares = Shares(limit, QUEUES)
        share = max(1, limit // 6) if limit >= len(QUEUES) else 0
        held: Counter[str | None] = Counter()
        waiting: list[tuple[str | None, asyncio.Task[None]]] = []

        async def settle() -> None:
            for _ in range(4):
                await asyncio.sleep(0)
            for one in [one for one in waiting if one[1].done()]:
                waiting.remove(one)
                held[one[0]] += not one[1].cancelled()

        for act, queue in acts:
            mine = [one for one in waiting if one[0] == queue]
            if act == "acquire":
                waiting.append((queue, asyncio.create_task(shares.acquire(queue))))
            elif act == "release" and held[queue]:
                held[queue] -= 1
                shares.release(queue)
            elif act == "cancel" and mine:
                mine[0][1].cancel()
            await settle()
            assert held.total() <= limit
            waits = {name for name, _ in waiting}
            free = limit - held.total()
            for name in QUEUES:
                reserved_for_others = sum(max(0, share - held[one]) for one in QUEUES if one != name)
                assert name not in waits or free <= reserved_for_others, "it waits although it may have a unit"
            assert None not in waits or not free
            # Only the engine itself, which returns its units at once, may use what is reserved for a queue.
            assert held[None] or all(free >= share - held[name] for name in QUEUES)
        for _, one in waiting:
            one.cancel()
        await settle()
        for queue, count in held.items():
            for _ in range(count):
                shares.release(queue)
        assert take_all(shares, None) == limit

    asyncio.run(run())


async def test_a_unit_that_is_given_to_one_who_is_cancelled_at_that_moment_goes_to_the_next() -> None:
    shares = Shares(1, ())
    await shares.acquire(None)
    first, second = (asyncio.create_task(shares.acquire(None)) for _ in range(2))
    await asyncio.sleep(0)
    shares.release(None)
    first.cancel()
    await asyncio.wait_for(second, 60)
    assert first.cancelled() or first.done()


class Work:
    """Turns of a pace that end when they are told to."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.begun = 0
        self.may_end = asyncio.Event()

    async def turn(self, queue: str, *, at_once: bool = False, has_begun: bool = False) -> None:
        async with self._pace.turn(queue, at_once=at_once, has_begun=has_begun):
            self.begun += 1
            await self.may_end.wait()


async def begin(work: Work, queue: str, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(work.turn(queue)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_background_work_has_few_turns_while_other_work_goes_on() -> None:
    pace = Pace(few=2, many=5, rest=0, recently=3600)
    work, other = Work(pace), Work(pace)
    other.may_end.set()
    await asyncio.gather(*await begin(other, "default", 3))
    tasks = await begin(work, TASK_QUEUE, 20)
    assert (other.begun, work.begun) == (3, 2)
    work.may_end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_background_work_has_many_turns_when_nothing_else_goes_on() -> None:
    work = Work(Pace(few=2, many=5, rest=0, recently=3600))
    tasks = await begin(work, TASK_QUEUE, 20)
    assert work.begun == 5
    tasks[7].cancel()
    work.may_end.set()
    await asyncio.wait_for(asyncio.wait(tasks), 60)
    assert work.begun == 19


async def test_background_work_that_holds_something_begins_at_once_and_others_wait_for_it() -> None:
    pace = Pace(few=1, many=1, rest=0, recently=3600)
    holding, others = Work(pace), Work(pace)
    tasks = [asyncio.create_task(holding.turn(TASK_QUEUE, at_once=True)) for _ in range(3)]
    tasks += await begin(others, TASK_QUEUE, 2)
    assert (holding.begun, others.begun) == (3, 0)
    holding.may_end.set()
    others.may_end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_other_work_waits_for_no_turn() -> None:
    pace = Pace(few=1, many=1, rest=0, recently=3600)
    background, other = Work(pace), Work(pace)
    tasks = await begin(background, TASK_QUEUE, 3) + await begin(other, "default", 50)
    assert other.begun == 50
    background.may_end.set()
    other.may_end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_background_work_rests_after_a_turn_while_other_work_goes_on() -> None:
    pace = Pace(few=1, many=1, rest=1e9, recently=3600)
    work, other = Work(pace), Work(pace)
    for one in (work, other):
        one.may_end.set()
    await asyncio.gather(*await begin(work, TASK_QUEUE, 3))
    await asyncio.gather(*await begin(other, "default", 1))
    tasks = await begin(work, TASK_QUEUE, 2)
    assert work.begun == 4, "the first is followed by a rest"
    pace.lift()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


class Clock:
    """The time of an event loop as a test sets it, and when something is to be called."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[float] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, _: object) -> None:
        self.calls.append(when)


async def test_rests_after_turns_that_did_not_wait_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits of sessions do not wait. Together they would otherwise take as much time as if there were no rests."""
    clock = Clock()
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "get_running_loop", lambda: clock)
        pace = Pace(few=1, many=1, rest=10, recently=3600)
    async with pace.turn("default"):
        pass
    for _ in range(3):
        async with pace.turn(TASK_QUEUE, at_once=True):
            clock.now += 0.01
    assert clock.calls == pytest.approx([100.11, 100.21, 100.31])
    for _ in range(20):
        async with pace.turn(TASK_QUEUE, at_once=True):
            clock.now += 0.01
    assert clock.calls[-1] == pytest.approx(clock.now + LONGEST_REST)


async def test_a_program_that_stops_lets_all_begin_that_wait() -> None:
    pace = Pace(few=1, many=1, rest=0, recently=3600)
    work = Work(pace)
    tasks = await begin(work, TASK_QUEUE, 20)
    pace.lift()
    work.may_end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert work.begun == 20


async def test_work_that_has_begun_goes_before_work_that_has_not() -> None:
    pace = Pace(few=1, many=1, rest=0, recently=3600)
    first, new, begun = Work(pace), Work(pace), Work(pace)
    tasks = await begin(first, TASK_QUEUE, 1) + await begin(new, TASK_QUEUE, 5)
    tasks.append(asyncio.create_task(begun.turn(TASK_QUEUE, has_begun=True)))
    await asyncio.sleep(0)
    first.may_end.set()
    await until(lambda: begun.begun == 1)
    assert new.begun == 0
    for one in (new, begun):
        one.may_end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Steps:
    """Steps that each need a connection, which they keep until they are ended."""

    def __init__(self, connections: Shares, pace: Pace) -> None:
        self._connections = connections
        self._admission = Admission(connections, pace)
        self._tasks: list[asyncio.Task[None]] = []
        self._may_end = asyncio.Semaphore(0)
        self.admitted = 0
        self.connected = 0
        self.ended = 0

    def begin(self, queue: str, count: int) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._run(queue)) for _ in range(count)]

    def end(self, count: int) -> None:
        for _ in range(count):
            self._may_end.release()

    async def _run(self, queue: str) -> None:
        await self._admission.wait(queue)
        self.admitted += 1
        await self._connections.acquire(queue)
        self.connected += 1
        await self._may_end.acquire()
        self._connections.release(queue)
        self.ended += 1


async def test_steps_of_tasks_begin_one_in_a_turn_while_other_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds that had been claimed before took connections as fast as these became free, without waiting for a turn."""
    monkeypatch.setattr(shares_module, "LONGEST_REST", 3600)
    pace = Pace(few=1, many=25, rest=1e9, recently=3600)
    steps = Steps(Shares(10, QUEUES[:2]), pace)
    early = steps.begin(TASK_QUEUE, 100)
    await until(lambda: steps.connected == 8)
    async with pace.turn("default"):
        pass
    steps.end(8)
    await until(lambda: steps.ended == 8)
    # Those whose turn had come before, and none once the rest of the first of them has begun.
    late = steps.begin("default", 3)
    steps.end(3 + 1)
    await asyncio.wait_for(asyncio.gather(*late), 60)
    assert steps.connected <= 8 + 1 + 3
    pace.lift()
    steps.end(100)
    await asyncio.wait_for(asyncio.gather(*early), 60)


async def test_no_more_steps_of_tasks_begin_than_there_are_connections_for_them() -> None:
    steps = Steps(Shares(10, QUEUES[:2]), Pace())
    tasks = steps.begin(TASK_QUEUE, 30)
    await until(lambda: steps.connected == 8)
    for ended in range(1, 23):
        assert steps.admitted == steps.connected == 7 + ended
        tasks[-1].cancel()  # one that waits
        tasks[-1:] = steps.begin(TASK_QUEUE, 1)
        steps.end(1)
        await until(lambda ended=ended: steps.connected == 8 + ended)  # type: ignore[misc]
    steps.end(8)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def test_steps_of_other_queues_are_admitted_at_once() -> None:
    connections = Shares(2, QUEUES[:2])
    admission = Admission(connections, Pace())
    assert take_all(connections, "default") == 1
    await asyncio.wait_for(admission.wait("default"), 60)
