"""The turns in which starts begin: how many at once and together, and with which rests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from orchestrator import shares
from orchestrator.broker.connection import QueueDepth
from orchestrator.coordinator import intake
from orchestrator.coordinator.intake import BEHIND, FEW, FLOOD, MANY, TOGETHER, TOGETHER_BEHIND, Intake
from orchestrator.db.session import Database
from tests.integration.waiting import until


async def _no_depth(_: str) -> QueueDepth | None:
    return None


async def test_few_starts_begin_while_running_work_is_behind_and_a_slow_form_holds_up_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = BEHIND

    async def count(_: object, limit: int) -> int:
        return min(limit, waiting)

    monkeypatch.setattr(intake, "count_waiting", count)
    monkeypatch.setattr(intake, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(intake, "LONGEST", 0.01)
    made, begun, stopping = Intake(database, _no_depth), 0, asyncio.Event()

    async def start() -> None:
        nonlocal begun
        async with made.start():
            begun += 1
            await gate.wait()

    gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run(stopping))
        for _ in range(40):
            tasks.create_task(start())
        await until(lambda: begun == 40, "all have begun, though none has ended")
        assert (await made.backlog()).seconds is None
        gate.set()
        stopping.set()
    assert (await made.backlog()).per_second == 4


@dataclass
class Starts:
    """Starts that begin in the turns of an intake, and end when a test says so."""

    intake: Intake
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    gates: list[asyncio.Event] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    def add(self, count: int) -> None:
        for _ in range(count):
            self.gates.append(asyncio.Event())
            self.tasks.append(asyncio.create_task(self._start(len(self.tasks))))

    async def end(self, numbers: Iterable[int]) -> None:
        ending = list(numbers)
        for number in ending:
            self.gates[number].set()
        await asyncio.gather(*(self.tasks[number] for number in ending))

    async def wait_for(self, count: int, what: str) -> None:
        await until(lambda: len(self.begun) == count, what)

    async def _start(self, number: int) -> None:
        async with self.intake.start():
            self.begun.append(number)
            await self.gates[number].wait()


async def _fall_behind(monkeypatch: pytest.MonkeyPatch, starts: Starts) -> asyncio.Task[None]:
    """Let running work be behind and go on."""
    looks = 0

    async def count(_: object, limit: int) -> int:
        nonlocal looks
        looks += 1
        return limit

    monkeypatch.setattr(intake, "count_waiting", count)
    monkeypatch.setattr(intake, "LOOK_EVERY", 0.001)
    looking = asyncio.create_task(starts.intake.run(asyncio.Event()))
    starts.add(1)
    await until(lambda: looks > 1, "it has looked")
    with starts.intake.running_work():
        pass
    await starts.end([0])
    return looking


@pytest.mark.parametrize(("is_behind", "together"), [(False, TOGETHER), (True, TOGETHER_BEHIND)])
async def test_starts_of_a_flood_begin_in_turns_which_end_when_few_are_left_and_no_more_than_share_a_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch, is_behind: bool, together: int
) -> None:
    for name, value in (("LONGEST", 60), ("RECENTLY", 3600), ("REST", 0), ("LONG_REST", 0)):
        monkeypatch.setattr(intake, name, value)
    starts = Starts(made := Intake(database, _no_depth))
    looking = await _fall_behind(monkeypatch, starts) if is_behind else None
    at_once = FEW if is_behind else MANY
    first = len(starts.tasks)
    starts.add(at_once + 2 * together + 2)
    waiting = range(first + at_once, len(starts.tasks))
    await starts.wait_for(waiting[0], "a few have begun, each in a turn of its own")
    assert made.is_full
    starts.tasks[waiting[0]].cancel()  # the others were to begin with it
    starts.tasks[waiting[2]].cancel()
    await starts.end(range(first, waiting[0] - 1))
    assert len(starts.begun) == waiting[0], "those that have begun are not fewer than may begin at once"
    await starts.end([waiting[0] - 1])
    await starts.wait_for(waiting[0] + together, "as many as share a statement have begun")
    turn, left = starts.begun[waiting[0] :], min(MANY, together // 4)
    await starts.end(turn[left + 1 :])
    await asyncio.sleep(0)
    assert len(starts.begun) == waiting[0] + together, "more than a few of the turn are left"
    await starts.end([turn[left]])
    await starts.wait_for(waiting[0] + 2 * together, "the others have begun, beside those that are left")
    await starts.end([*turn[:left], *starts.begun[-together:]])
    assert sorted(starts.begun) == [
        number for number in range(len(starts.tasks)) if number not in (waiting[0], waiting[2])
    ]
    assert not made.is_full
    if looking is not None:
        looking.cancel()


def _rest_for_ever(monkeypatch: pytest.MonkeyPatch, rests: str) -> None:
    values = {"REST": 0.0, "LONG_REST": 0.0, "LONGEST": 60, "RECENTLY": 3600, rests: 1e9}
    for name, value in values.items():
        monkeypatch.setattr(intake, name, value)
    monkeypatch.setattr(shares, "LONGEST_REST", 3600)


async def _stop(made: Intake) -> None:
    (stopping := asyncio.Event()).set()
    await made.run(stopping)


async def test_a_few_starts_do_not_rest_and_a_flood_does_after_each_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rest_for_ever(monkeypatch, "REST")
    starts = Starts(made := Intake(database, _no_depth))
    for number in range(2 * MANY):
        starts.add(1)
        await starts.wait_for(number + 1, "it has begun")
        await starts.end([number])
    starts.add(FLOOD)
    await starts.wait_for(3 * MANY, "as many as begin at once have begun")
    await starts.end(range(2 * MANY, 3 * MANY))
    await starts.wait_for(first := 2 * MANY + FLOOD, "the others have begun, without a rest")
    await starts.end(range(3 * MANY, first))
    starts.add(FLOOD + 1)
    await starts.wait_for(first + MANY, "as many as begin at once have begun")
    await starts.end(range(first, first + MANY))
    await asyncio.sleep(0)
    assert (len(starts.begun), made.is_full) == (first + MANY, True)
    await _stop(made)
    await starts.wait_for(first + FLOOD + 1, "a program that stops waits for no rest")
    await starts.end(range(first + MANY, first + FLOOD + 1))


async def test_a_flood_is_known_by_what_is_in_hand_even_when_nothing_has_arrived_lately(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rest_for_ever(monkeypatch, "REST")
    monkeypatch.setattr(intake, "RECENTLY", -1)
    starts = Starts(made := Intake(database, _no_depth))
    starts.add(MANY + TOGETHER)
    await starts.wait_for(MANY, "as many as begin at once have begun")
    await starts.end(range(MANY))
    await asyncio.sleep(0)
    assert (len(starts.begun), made.is_full) == (MANY, True)
    await _stop(made)
    await starts.wait_for(len(starts.tasks), "a program that stops waits for no rest")
    await starts.end(range(MANY, len(starts.tasks)))


async def test_a_turn_while_running_work_is_behind_has_a_long_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rest_for_ever(monkeypatch, "LONG_REST")
    starts = Starts(made := Intake(database, _no_depth))
    looking = await _fall_behind(monkeypatch, starts)
    starts.add(1)
    await until(lambda: made.is_full, "it waits for the end of the rest")
    assert starts.begun == [0]
    looking.cancel()
    await _stop(made)
    await starts.wait_for(2, "a program that stops waits for no rest")
    await starts.end([1])


@pytest.mark.parametrize("rests", ["REST", "LONG_REST"])
async def test_a_turn_has_a_long_rest_while_there_are_other_requests(
    database: Database, monkeypatch: pytest.MonkeyPatch, rests: str
) -> None:
    _rest_for_ever(monkeypatch, rests)
    monkeypatch.setattr(intake, "ASKED_FOR", 3600)
    starts = Starts(made := Intake(database, _no_depth))
    made.note_request()
    starts.add(FLOOD + 1)
    await starts.wait_for(MANY, "as many as begin at once have begun")
    await starts.end(range(MANY))
    if rests == "LONG_REST":
        await asyncio.sleep(0)
        assert (len(starts.begun), made.is_full) == (MANY, True)
        await _stop(made)
    await starts.wait_for(len(starts.tasks), "they begin without a rest, or because the program stops")
    await starts.end(range(MANY, len(starts.tasks)))


async def test_a_start_that_goes_back_to_its_queue_does_not_count_as_ended(database: Database) -> None:
    made = Intake(database, _no_depth)
    async with made.start() as wait_on:
        wait_on()
    assert (await made.backlog()).per_second == 0
    async with made.start():
        assert not made.is_full
    assert (await made.backlog()).per_second == 0.1


async def test_an_intake_is_full_while_starts_wait_for_others_that_have_just_begun(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LONGEST", 60)
    made, gate, begun = Intake(database, _no_depth), asyncio.Event(), 0

    async def start() -> None:
        nonlocal begun
        async with made.start():
            begun += 1
            await gate.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(1, intake.MANY + 1):
            tasks.create_task(start())
            await until(lambda: begun == number, "as many have begun as may at once")  # noqa: B023 - awaited here
        assert not made.is_full
        tasks.create_task(start())
        await until(lambda: made.is_full, "one more waits")
        gate.set()
    assert not made.is_full


async def test_running_work_is_behind_when_more_waits_than_is_done_between_two_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would run out before the next look."""
    limits: list[int] = []

    async def count(_: object, limit: int) -> int:
        limits.append(limit)
        return 0

    monkeypatch.setattr(intake, "count_waiting", count)
    monkeypatch.setattr(intake, "LOOK_EVERY", 0.001)
    made, stopping = Intake(database, _no_depth), asyncio.Event()
    async with asyncio.TaskGroup() as tasks, made.start():
        tasks.create_task(made.run(stopping))
        await until(lambda: BEHIND in limits, "it looks while little is done")
        for _ in range(4 * BEHIND):
            with made.running_work():
                pass
        await until(lambda: 4 * BEHIND in limits, "it looks after much was done")
        stopping.set()
