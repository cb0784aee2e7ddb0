"""Events that are left out because no queue was bound: no reader misses one, whenever it binds a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.coordinator import unbound as module
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.unbound import Course, Unbound
from orchestrator.db.session import DriverPool
from orchestrator.messages import Advanced, LoggedEntry
from tests.unit.event_wire import Sent, Wire, settle

STATUSES = ("running", "waiting", "completed")
KEYS = [f"process.w.{status}" for status in STATUSES]


def message_of(process_id: UUID, statuses: list[str], first: int = 1, announced: int | None = None) -> Advanced:
    entries = [
        LoggedEntry(sequence=first + number, kind="process", name="n", status=status, attempt=0, author="me")
        for number, status in enumerate(statuses)
    ]
    return Advanced(
        process_id=process_id,
        workflow="w",
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=first + len(statuses) - 1,
        user="me",
        at=datetime.now(UTC),
        announced=first - 1 if announced is None else announced,
        entries=entries,
    )


@dataclass(eq=False)
class Reader:
    keys: frozenset[str]
    committed: dict[str, int]
    """How many entries each process had when the queue was bound."""
    is_bound: bool = True
    got: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """The events of a process that came from one coordinator."""
    order: dict[str, list[int]] = field(default_factory=dict)
    """The events of a process, whoever they came from."""

    def take(self, sent: Sent, coordinator: int) -> None:
        self.got.setdefault((sent.process_id, coordinator), []).append(sent.sequence)
        self.order.setdefault(sent.process_id, []).append(sent.sequence)

    def first_times(self, process_id: str, coordinator: int) -> list[int]:
        return list(dict.fromkeys(self.got.get((process_id, coordinator), [])))


class World:
    """Processes, coordinators with a wire each, and readers that come and go."""

    def __init__(self, data: st.DataObject, coordinators: int) -> None:
        self.data = data
        self.wires = [Wire() for _ in range(coordinators)]
        self.announcers = [
            Announcer(cast("Publisher", one), cast("DriverPool", None), lambda: True) for one in self.wires
        ]
        self.logs: dict[str, list[str]] = {}
        self.confirmed: dict[str, int] = {}
        self.readers: list[Reader] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def draw(self, *options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def commit(self) -> None:
        """Store entries of a process, and give a message about them to a coordinator."""
        process_id = self.draw(*[*self.logs, str(uuid4())][-4:])
        log = self.logs.setdefault(process_id, [])
        first = len(log) + 1
        log += self.data.draw(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=4))
        self.announce(process_id, first)

    def announce(self, process_id: str, first: int, coordinator: int | None = None) -> None:
        number = self.draw(*range(len(self.wires))) if coordinator is None else coordinator
        announced = self.confirmed.get(process_id, 0)
        first = min(first, announced + 1)
        message = message_of(UUID(process_id), self.logs[process_id][first - 1 :], first, announced)
        self._run(self._announce(self.announcers[number], message))

    async def _announce(self, announcer: Announcer, message: Advanced) -> None:
        confirmed = await announcer.announce(message, probe=True)
        key = str(message.process_id)
        self.confirmed[key] = max(confirmed, self.confirmed.get(key, 0))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def bind(self) -> None:
        keys = self.data.draw(st.frozensets(st.sampled_from(KEYS), min_size=1))
        self.readers.append(Reader(keys, {process_id: len(log) for process_id, log in self.logs.items()}))

    def unbind(self) -> None:
        bound = [one for one in self.readers if one.is_bound]
        if bound:
            self.draw(*bound).is_bound = False

    def look(self) -> None:
        wires = [(number, one) for number, one in enumerate(self.wires) if one.waiting]
        if not wires:
            return
        number, wire = self.draw(*wires)
        sent = wire.look(self.draw(*wire.waiting))
        takers = [one for one in self.readers if one.is_bound and sent.key in one.keys]
        sent.is_taken = bool(takers)
        if takers and self.draw(*[False] * 5, True):
            wire.fail(sent)  # a full queue: nobody gets it, as far as the others go
            return
        for one in takers:
            one.take(sent, number)

    def answer(self) -> None:
        wires = [one for one in self.wires if one.looked_at]
        if wires:
            wire = self.draw(*wires)
            sent = self.draw(*wire.looked_at)
            self.draw(*[wire.answer] * 9, wire.fail)(sent)

    def open_channel(self) -> None:
        self.draw(*self.wires).channel += 1

    def isolate(self) -> None:
        self.draw(*self.wires).alone ^= {self.draw(*KEYS)}

    def retry(self) -> None:
        """Let the backlog publish what is not confirmed."""
        behind = [one for one, log in self.logs.items() if self.confirmed.get(one, 0) < len(log)]
        if behind:
            process_id = self.draw(*behind)
            self.announce(process_id, self.confirmed.get(process_id, 0) + 1)

    async def finish(self) -> None:
        """Answer everything, until all events are settled."""
        while True:
            for number, wire in enumerate(self.wires):
                for channel in list(wire.waiting):
                    while channel in wire.waiting:
                        sent = wire.look(channel)
                        takers = [one for one in self.readers if one.is_bound and sent.key in one.keys]
                        sent.is_taken = bool(takers)
                        for one in takers:
                            one.take(sent, number)
                for sent in list(wire.looked_at):
                    wire.answer(sent)
            await settle()
            if self.tasks or any(one.waiting for one in self.wires):
                continue
            behind = [one for one, log in self.logs.items() if self.confirmed.get(one, 0) < len(log)]
            if not behind:
                return
            for process_id in behind:
                self.announce(process_id, self.confirmed.get(process_id, 0) + 1, 0)
            await settle()

    def check(self) -> None:
        """Two coordinators may repeat what the other has settled, and stop halfway; so each is looked at for itself."""
        for reader in self.readers:
            for process_id, log in self.logs.items():
                wanted = [number for number, status in enumerate(log, 1) if f"process.w.{status}" in reader.keys]
                since = reader.committed.get(process_id, 0)
                seen = list(dict.fromkeys(reader.order.get(process_id, [])))
                for coordinator in range(len(self.wires)):
                    got = reader.first_times(process_id, coordinator)
                    assert got == sorted(got), "each coordinator publishes in order"
                if seen and (since == 0 or len(self.wires) == 1):
                    assert seen == [one for one in wanted if seen[0] <= one <= seen[-1]], "without gaps, in order"
                if reader.is_bound:
                    assert set(seen) >= {one for one in wanted if one > since}, "nothing is lost"


@pytest.mark.parametrize("rest", [0.0, 1e-5])
@pytest.mark.parametrize("coordinators", [1, 2])
def test_a_reader_gets_a_gapless_tail_of_what_it_has_bound_whenever_it_has_bound_it(
    coordinators: int, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", rest)

    @given(st.data())
    def walk(data: st.DataObject) -> None:
        async def run() -> None:
            world = World(data, coordinators)
            deeds = [world.commit, world.bind, world.unbind, world.retry, world.open_channel, world.isolate]
            deeds += 3 * [world.commit] + 8 * [world.look, world.answer]
            for _ in range(data.draw(st.integers(1, 40))):
                world.draw(*deeds)()
                await settle()
            await world.finish()
            world.check()

        asyncio.run(run())

    walk()


class Table:
    """Courses over one wire, whose broker does as it is told."""

    def __init__(self, *, is_busy: bool = False) -> None:
        self.wire = Wire()
        self.unbound = Unbound(cast("Publisher", self.wire), lambda: is_busy)

    async def settle(self, course: Course, key: str) -> asyncio.Task[str]:
        """Let a course settle an event as far as it can now; the task says how."""

        async def run() -> str:
            if await course.leaves_out(key):
                return "left out"
            await course.publish(Outgoing("events", key, "process.event", b"", optional=True))
            return "published"

        task = asyncio.get_running_loop().create_task(run())
        await settle()
        return task

    async def reply(self, answer: str = "returned") -> None:
        """Answer the oldest message."""
        sent = self.wire.look(min(self.wire.waiting, key=abs))
        sent.is_taken = answer == "taken"
        (self.wire.fail if answer == "failed" else self.wire.answer)(sent)
        await settle()

    async def publish(self, course: Course, key: str, answer: str = "returned") -> None:
        """Have an event published, and answered."""
        task = await self.settle(course, key)
        await self.reply(answer)
        assert await task == "published"

    async def left_out(self, course: Course, key: str) -> bool:
        """Whether an event is left out, at once; if it is published nobody takes it."""
        task = await self.settle(course, key)
        if not task.done():
            await self.reply()
        return await task == "left out"


async def test_events_of_one_key_in_a_row_are_left_out_behind_one_that_was_returned() -> None:
    table = Table()
    course = table.unbound.begin()
    await table.publish(course, "a")
    assert await table.left_out(course, "a")
    assert not await table.left_out(course, "b")
    assert not await table.left_out(course, "a"), "the answer for 'a' is older than that for 'b'"
    assert await table.left_out(course, "a")


async def test_an_answer_about_an_earlier_moment_says_nothing_about_a_later_event() -> None:
    table = Table()
    await table.publish(table.unbound.begin(), "a")
    assert not await table.left_out(table.unbound.begin(), "a")


async def test_an_answer_about_what_was_sent_later_serves_all_who_were_there_before() -> None:
    table = Table()
    before = [table.unbound.begin() for _ in range(3)]
    await table.publish(table.unbound.begin(), "a")
    assert [await table.left_out(one, "a") for one in before] == [True, True, True]


async def test_an_event_that_was_taken_is_followed_by_others() -> None:
    table = Table()
    course = table.unbound.begin()
    await table.publish(course, "a", "taken")
    await table.publish(course, "a", "taken")
    assert not await table.left_out(course, "a")


async def test_one_publishes_for_all_while_nobody_is_bound_and_each_for_itself_once_somebody_is() -> None:
    table = Table()
    await table.publish(table.unbound.begin(), "a")
    first = await table.settle(table.unbound.begin(), "a")
    others = [await table.settle(table.unbound.begin(), "a") for _ in range(3)]
    assert table.wire.sent == 2
    await table.reply()
    assert table.wire.sent == 3, "the first was sent before the others' entries were known"
    await table.reply()
    assert [await one for one in [first, *others]] == ["published", "published", "left out", "left out"]

    more = [await table.settle(table.unbound.begin(), "a") for _ in range(3)]
    assert table.wire.sent == 4
    await table.reply("taken")
    assert table.wire.sent == 6, "nobody waits any more"
    for _ in range(2):
        await table.reply("taken")
    assert [await one for one in more] == 3 * ["published"]


@pytest.mark.parametrize("how", ["failed", "cancelled", "alone"])
async def test_those_who_wait_publish_themselves_when_there_is_no_answer_that_they_can_use(how: str) -> None:
    table = Table()
    await table.publish(table.unbound.begin(), "a")
    if how == "alone":
        table.wire.alone.add("a")
    first = await table.settle(table.unbound.begin(), "a")
    others = [await table.settle(table.unbound.begin(), "a") for _ in range(2)]
    table.wire.alone.clear()
    if how == "cancelled":
        first.cancel()
        table.wire.waiting.clear()
        await settle()
    else:
        await table.reply("failed" if how == "failed" else "returned")
    for _ in others:
        await table.reply()
    assert [await one for one in others] == 2 * ["published"]
    await asyncio.gather(first, return_exceptions=True)


async def test_only_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 1)
    table = Table()
    before = table.unbound.begin()
    for key in ("a", "b"):
        await table.publish(table.unbound.begin(), key)
    assert not await table.left_out(before, "a")


async def test_while_the_program_is_busy_a_key_that_was_returned_rests_until_many_share_its_next_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REST", 0.05)
    table = Table(is_busy=True)
    await table.publish(table.unbound.begin(), "a")
    table.wire.news.clear()
    courses = [table.unbound.begin() for _ in range(5)]
    tasks = [await table.settle(one, "a") for one in courses]
    async with asyncio.timeout(30):
        await table.wire.news.wait()
    await table.reply()
    assert sorted(await asyncio.gather(*tasks)) == [*4 * ["left out"], "published"]
    assert table.wire.sent == 2


@pytest.mark.parametrize(("is_busy", "answer"), [(False, "returned"), (True, "taken")])
async def test_no_event_rests_when_there_is_little_to_do_or_a_queue_is_bound_for_it(
    is_busy: bool, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 3600)
    table = Table(is_busy=is_busy)
    for _ in range(3):
        await table.publish(table.unbound.begin(), "a", answer)


async def test_it_is_known_for_a_while_that_no_queue_was_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    assert not table.unbound.was_returned("a")
    await table.publish(table.unbound.begin(), "a")
    assert table.unbound.was_returned("a")
    with monkeypatch.context() as later:
        later.setattr(module, "RECENTLY", 0.0)
        assert not table.unbound.was_returned("a")
    await table.publish(table.unbound.begin(), "a", "taken")
    assert not table.unbound.was_returned("a")
