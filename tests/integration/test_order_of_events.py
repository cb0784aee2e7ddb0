"""Random walks: whatever the broker refuses and whichever program dies, events come in order and none is marked too early."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import cast
from uuid import UUID

import pytest

from consumers.runner import Runner
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer, Publisher
from orchestrator.broker.topology import Exchanges
from orchestrator.coordinator import backlog
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.backlog import Backlog
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.handlers import Handlers
from orchestrator.db.session import Database
from orchestrator.errors import PublishError
from orchestrator.messages import MessageType
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import look
from orchestrator.services.start import StartRequest, start
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.waiting import until


@step("One")
async def one() -> None:
    return None


@step("Two")
async def two() -> None:
    return None


@step("Three")
async def three() -> None:
    return None


@workflow("A few steps")
def few() -> StepList:
    return init >> one >> two >> three >> done


@workflow("The same, under another name")
def others() -> StepList:
    return init >> one >> two >> three >> done


class Broker:
    """Takes messages, or refuses them, or takes them and loses the confirm."""

    sent = 0

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.trouble = 0.0
        self.refused_workflows: set[str] = set()
        self.commands: list[Outgoing] = []
        self.results: list[Outgoing] = []
        self.events: dict[str, list[int]] = {}
        self.confirmed: dict[str, set[int]] = {}
        self.tries = 0

    async def publish(self, message: Outgoing) -> Answer:
        """Stand in for ``Publisher.publish``."""
        if message.exchange == Exchanges.EVENTS:
            self._take_event(message)
        elif message.exchange == Exchanges.STEPS:
            self.commands.append(message)
        else:
            self.results.append(message)
        return Answer(is_taken=True, place=None)

    def _take_event(self, message: Outgoing) -> None:
        self.tries += 1
        body = json.loads(message.body)
        fate = self._chance.random()
        if body["workflow"] in self.refused_workflows or fate < self.trouble:
            raise PublishError("refused")
        self.events.setdefault(body["process_id"], []).append(body["sequence"])
        if fate < 1.3 * self.trouble:
            raise PublishError("no confirm")
        self.confirmed.setdefault(body["process_id"], set()).add(body["sequence"])


class Coordinator:
    """The parts of a coordinator, with what it remembers."""

    def __init__(self, database: Database, broker: Broker) -> None:
        publisher = cast("Publisher", broker)
        self.announcer = Announcer(publisher, database.pool)
        self.dispatcher = Dispatcher(publisher, self.announcer)
        self.handlers = Handlers(database, publisher, self.dispatcher, LIMITS, ProgramPlans({}))
        self.backlog = Backlog(database, self.announcer, interval=1)


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Provide a bench that knows the workflows above."""
    async with bench_of(database, amqp_url, monkeypatch, __name__, few, others) as made:
        yield made


class Walk:
    """Processes, coordinators and a broker to which everything may happen."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.chance = bench, random.Random(seed)
        self.broker = Broker(self.chance)
        self.coordinators = [Coordinator(bench.database, self.broker) for _ in range(2)]
        self.process_ids: list[UUID] = []

    async def start(self, workflow: str = "few") -> UUID:
        """Start a process at one of the coordinators, which may die before it has published anything."""
        async with self.bench.database.transaction() as session:
            outcome = await start(session, StartRequest(workflow), LIMITS)
        assert outcome.message is not None
        self.process_ids.append(outcome.process_id)
        if self.chance.random() < 0.8:
            await self._coordinator().dispatcher.try_publish(outcome.message)
        return outcome.process_id

    async def take_command(self, runner: Runner) -> None:
        """Run the step of a command, which is lost, delivered, or delivered twice."""
        command = self.broker.commands.pop(self.chance.randrange(len(self.broker.commands)))
        for _ in range(self.chance.choice([0, 1, 1, 1, 2])):
            await runner.take(delivery("default", command.body, kind=MessageType.STEP_COMMAND))
            await until(lambda: runner.running == 0, "the step has ended")

    async def take_result(self) -> None:
        """Give a result to one coordinator, or to both: the first has died before it could acknowledge it."""
        result = self.broker.results.pop(self.chance.randrange(len(self.broker.results)))
        for _ in range(self.chance.choice([0, 1, 1, 1, 2])):
            await self._coordinator().handlers.take_result(delivery("result", result.body, kind=result.type))

    async def reconcile(self) -> None:
        """Let time pass: everything is due, and one of the coordinators sees to it."""
        await self.bench.database.pool.execute("UPDATE processes SET announce_at = now() WHERE announce_at IS NOT NULL")
        await self._coordinator().backlog.run_once()
        if self.chance.random() < 0.3:
            async with self.bench.database.transaction() as session:
                found = await look(session, self.chance.choice(self.process_ids), LIMITS)
            assert found is not None
            await self._coordinator().dispatcher.try_publish(found)

    async def replace(self) -> None:
        """Kill a coordinator with all that it remembers, and start another."""
        self.coordinators[self.chance.randrange(2)] = Coordinator(self.bench.database, self.broker)

    async def check(self) -> None:
        """Each event came for the first time after the one before it, and only what is confirmed is marked."""
        for events in self.broker.events.values():
            first_times = list(dict.fromkeys(events))
            assert first_times == list(range(1, len(first_times) + 1))
        for process_id in self.process_ids:
            row = await self.bench.row(process_id)
            assert set(range(1, row["announced"] + 1)) <= self.broker.confirmed.get(str(process_id), set())

    async def is_finished(self) -> bool:
        """Return whether all processes are completed and all that is left to do is done."""
        rows = [await self.bench.row(process_id) for process_id in self.process_ids]
        return all(row["status"] == "completed" and row["announced"] == row["sequence"] for row in rows)

    def _coordinator(self) -> Coordinator:
        return self.chance.choice(self.coordinators)


@pytest.mark.parametrize("seed", range(6))
async def test_events_come_in_order_and_none_is_marked_before_it_is_confirmed(bench: Bench, seed: int) -> None:
    walk = Walk(bench, seed)
    runner = await bench.runner(publisher=cast("Publisher", walk.broker))
    walk.broker.trouble = walk.chance.choice([0.1, 0.4, 0.7])
    for _ in range(60):
        deeds = [walk.reconcile, walk.replace] if walk.process_ids else []
        if len(walk.process_ids) < 3:
            deeds.append(walk.start)  # type: ignore[arg-type]  # what it returns is of no interest here
        if walk.broker.commands:
            deeds += 3 * [lambda: walk.take_command(runner)]
        if walk.broker.results:
            deeds += 3 * [walk.take_result]
        await walk.chance.choice(deeds)()
        await walk.check()

    walk.broker.trouble = 0.0

    async def finish() -> bool:
        await bench.database.pool.execute("UPDATE processes SET due_at = now() WHERE status = 'running'")
        for process_id in walk.process_ids:
            async with bench.database.transaction() as session:
                found = await look(session, process_id, LIMITS)
            assert found is not None
            await walk.coordinators[0].dispatcher.publish(found)
        while walk.broker.commands:
            await walk.take_command(runner)
        while walk.broker.results:
            await walk.take_result()
        for one_of in walk.coordinators:
            await one_of.announcer.write_marks()
        await walk.reconcile()
        await walk.check()
        return await walk.is_finished()

    await until(finish, "all is done")


async def test_a_process_whose_events_are_confirmed_is_never_listed_while_it_runs(bench: Bench) -> None:
    """So a step changes no indexed column, and PostgreSQL keeps the row's versions on one page."""
    walk = Walk(bench, 0)
    runner = await bench.runner(publisher=cast("Publisher", walk.broker))
    coordinator = walk.coordinators[0]
    process_id = await bench.start("few")
    async with bench.database.transaction() as session:
        message = await look(session, process_id, LIMITS)
    assert message is not None
    await coordinator.dispatcher.publish(message)
    for announced in (3, 4, 5):
        assert (await bench.row(process_id))["announce_at"] is None
        await runner.take(delivery("default", walk.broker.commands.pop().body, kind=MessageType.STEP_COMMAND))
        await until(lambda: runner.running == 0, "the step has ended")
        row = await bench.row(process_id)
        assert row["announced"] == announced
        result = walk.broker.results.pop()
        assert json.loads(result.body)["announced"] == announced
        await coordinator.handlers.take_result(delivery("result", result.body, kind=result.type))
    assert (await bench.row(process_id))["announce_at"] is not None, "it rests, and the mark is not written yet"
    await coordinator.announcer.write_marks()
    row = await bench.row(process_id)
    assert (row["announced"], row["announce_at"]) == (row["sequence"], None)


async def test_a_full_queue_of_one_workflow_costs_one_try_a_round_and_does_not_delay_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many processes wait for it, and however many of the others must be published from the rows."""
    walk = Walk(bench, 0)
    walk.broker.refused_workflows = {"few"}
    coordinator = walk.coordinators[0]
    for name in 5 * ["few"] + 5 * ["others"]:
        walk.process_ids.append(await bench.start(name))
    await bench.database.pool.execute("UPDATE processes SET announce_at = now()")
    assert await coordinator.backlog.run_once() == backlog.SHORTEST
    rows = [await bench.row(process_id) for process_id in walk.process_ids]
    assert [row["announced"] for row in rows] == 5 * [0] + 5 * [3]
    assert [row["announce_at"] is None for row in rows] == 5 * [False] + 5 * [True]
    assert coordinator.announcer.refused == {"few"}

    walk.broker.tries = 0
    monkeypatch.setattr(backlog, "LONGEST", 0.3)
    for pause in (0.2, 0.3, 0.3):
        await bench.database.pool.execute("UPDATE processes SET announce_at = now() WHERE announce_at IS NOT NULL")
        assert await coordinator.backlog.run_once() == pause
    assert walk.broker.tries == 3

    walk.broker.refused_workflows = set()
    for _ in range(2):
        await bench.database.pool.execute("UPDATE processes SET announce_at = now() WHERE announce_at IS NOT NULL")
        assert await coordinator.backlog.run_once() == 0.0
    assert await coordinator.backlog.run_once() == 1
    rows = [await bench.row(process_id) for process_id in walk.process_ids]
    assert [(row["announced"], row["announce_at"]) for row in rows] == 10 * [(3, None)]
    await walk.check()
