"""Requests that call code of authors take turns, of which no workflow has more than it leaves to all others."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import WorkflowBusyError
from orchestrator.fair_turns import LONG, MOST_WAITING, SLOW, FairTurns, calling_author

WORKFLOWS = ("a", "b", "c", "d", "e")


class Clock:
    """The time of the event loop, which passes only here."""

    def __init__(self, now: float) -> None:
        self.now = now

    def advance(self, seconds: float) -> None:
        """Let time pass; what waits for it goes on when the loop runs."""
        self.now += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time())
    monkeypatch.setattr(loop, "time", lambda: clock.now)
    return clock


class Requests:
    """Requests that hold their turns until they are ended.

    Args:
        is_author: whether it is the code of an author that holds them.
    """

    def __init__(self, limit: int, *, is_author: bool = True) -> None:
        self.call = calling_author if is_author else nullcontext
        self.turns = FairTurns(limit)
        self.held: Counter[str] = Counter()
        self.tasks: list[tuple[str, asyncio.Event, asyncio.Task[None]]] = []

    def begin(self, workflow: str, patience: float | None = None) -> asyncio.Task[None]:
        """Ask for a turn."""
        ended = asyncio.Event()

        async def hold() -> None:
            async with self.turns.turn(workflow, patience):
                self.held[workflow] += 1
                try:
                    with self.call():
                        await ended.wait()
                finally:
                    self.held[workflow] -= 1

        task = asyncio.create_task(hold())
        self.tasks.append((workflow, ended, task))
        return task

    async def settle(self) -> None:
        """Let everything happen that can."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def end_all(self) -> None:
        """End all, those that still wait included."""
        for _, ended, _ in self.tasks:
            ended.set()
        await asyncio.gather(*(task for *_, task in self.tasks), return_exceptions=True)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [1, 0, 0, 0]), (2, [1, 1, 0, 0]), (5, [3, 1, 1, 0]), (8, [4, 2, 1, 1]), (20, [10, 5, 3, 1])],
)
async def test_each_workflow_leaves_as_many_turns_to_others_as_it_has(limit: int, expected: list[int]) -> None:
    requests = Requests(limit)
    for workflow in WORKFLOWS[:4]:
        for _ in range(30):
            requests.begin(workflow)
        await requests.settle()
    assert [requests.held[one] for one in WORKFLOWS[:4]] == expected
    await requests.end_all()


ACTS = st.lists(
    st.tuples(st.sampled_from(["begin", "begin", "end", "cancel"]), st.sampled_from(WORKFLOWS)), max_size=60
)


@given(limit=st.integers(1, 9), acts=ACTS)
def test_whatever_happens_no_turn_is_lost_and_nobody_waits_who_may_have_one(
    limit: int, acts: list[tuple[str, str]]
) -> None:
    async def run() -> None:
        requests = Requests(limit)
        for act, workflow in acts:
            mine = [one for one in requests.tasks if one[0] == workflow and not one[2].done()]
            if act == "begin":
                requests.begin(workflow)
            elif mine and act == "end":
                mine[0][1].set()
            elif mine:
                mine[-1][2].cancel()
            await requests.settle()
            free = limit - requests.held.total()
            running = Counter(name for name, _, task in requests.tasks if not task.done())
            assert free >= 0
            for name in WORKFLOWS:
                waits = running[name] > requests.held[name]
                assert not waits or free <= requests.held[name]
        await requests.end_all()
        assert requests.held.total() == 0
        again = [requests.begin(str(number)) for number in range(limit)]
        await requests.settle()
        assert requests.held.total() == limit
        for task in again:
            task.cancel()

    asyncio.run(run())


async def test_who_gets_no_turn_in_time_is_refused_and_takes_none_later() -> None:
    requests = Requests(1)
    requests.begin("a")
    await requests.settle()
    with pytest.raises(WorkflowBusyError, match=r"requests of 'b' or other .* no turn within 0\.01 s: send it again"):
        await requests.begin("b", 0.01)
    requests.tasks[0][1].set()
    requests.begin("c")
    await requests.settle()
    assert requests.held == Counter(c=1)
    await requests.end_all()


async def test_those_behind_so_many_do_not_wait_for_long(clock: Clock) -> None:
    """Messages in hand are few, and those of other workflows come behind them."""
    requests = Requests(2)
    tasks = [requests.begin("a") for _ in range(MOST_WAITING + 3)]
    await requests.settle()
    clock.advance(LONG + 1)
    await requests.settle()
    assert [task.done() for task in tasks] == [False] * (MOST_WAITING + 1) + [True] * 2
    for late in tasks[-2:]:
        with pytest.raises(WorkflowBusyError, match=r"of 'a' takes long .* 20 others have waited for longer"):
            await late
    at_once = requests.begin("a")
    await requests.settle()
    assert isinstance(at_once.exception(), WorkflowBusyError)
    requests.begin("b")
    await requests.settle()
    assert requests.held == Counter(a=1, b=1)
    await requests.end_all()
    assert all(task.exception() is None for task in tasks[:-2])


@pytest.mark.parametrize(
    ("is_author", "takes"),
    [
        pytest.param(True, SLOW - 1, id="each is quick, but many come at once"),
        pytest.param(False, LONG + 1, id="each is slow, but because of the machine or the database"),
    ],
)
async def test_nobody_is_refused_for_waiting_long_while_the_code_of_authors_is_quick(
    clock: Clock, is_author: bool, takes: float
) -> None:
    """Nobody would have been served sooner if the others had been of another workflow."""
    requests = Requests(2, is_author=is_author)
    turns = int(LONG / takes) + 2
    tasks = [requests.begin("a") for _ in range(turns + MOST_WAITING + 3)]
    for _, ended, _ in requests.tasks[:turns]:
        await requests.settle()
        clock.advance(takes)
        ended.set()
    tasks.append(requests.begin("a"))
    await requests.settle()
    assert [task.done() for task in tasks] == [True] * turns + [False] * (MOST_WAITING + 4)
    await requests.end_all()
    assert [task.exception() for task in tasks] == [None] * len(tasks)


async def test_those_behind_so_many_wait_on_when_the_others_go_on(clock: Clock) -> None:
    """What counts is how many are before it now, not how many there were when it came."""
    requests = Requests(1)
    tasks = [requests.begin("a") for _ in range(MOST_WAITING + 4)]
    await requests.settle()
    for _, ended, _ in requests.tasks[:3]:
        ended.set()
        await requests.settle()
    clock.advance(LONG + 1)
    await requests.settle()
    assert [task.done() for task in tasks] == [True] * 3 + [False] * (MOST_WAITING + 1)
    await requests.end_all()
    assert [task.exception() for task in tasks] == [None] * len(tasks)
