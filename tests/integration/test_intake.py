"""Running work goes before new work: many starts at once, and what commands, answers and senders notice of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.exceptions import DeliveryError

from orchestrator import shares
from orchestrator.broker.connection import QueueDepth
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.coordinator import intake
from orchestrator.coordinator.intake import BEHIND, FEW, MANY, PREFETCH, TOGETHER, TOGETHER_BEHIND, Intake
from orchestrator.coordinator.program import run_coordinator
from orchestrator.db.session import Database
from orchestrator.forms import FormPage
from orchestrator.settings import Settings
from orchestrator.workflow import StepList, callback_step, done, init, step, workflow
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.letter_bench import publish
from tests.integration.test_broker import address, letters, ready
from tests.integration.waiting import until
from tests.servers import Servers

STARTS = PREFETCH + 30
gates: list[asyncio.Event] = []


class Empty(FormPage):
    """A page without fields."""


async def slow_form() -> AsyncIterator[Any]:
    yield Empty
    await gates[-1].wait()
    yield {}


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


@workflow("Asks another system before it starts", initial_input_form=slow_form)
def starts_slowly() -> StepList:
    return init >> check >> done


@workflow("Waits for another system")
def wait_for_it() -> StepList:
    return init >> callback_step("Delivery", send, check) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, wait_for_it, starts_slowly) as made:
        await made.publisher.check()
        gates.append(asyncio.Event())
        yield made
        gates.pop().set()


async def _park(bench: Bench) -> tuple[UUID, str]:
    process_id = await bench.start("wait_for_it")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    return process_id, str(token)


async def _ask(url: str, key: str, body: object) -> dict[str, Any]:
    """Send a command and wait for the reply."""
    name = uuid4().hex
    async with await aio_pika.connect(url) as connection:
        await (await connection.channel()).declare_queue(name, durable=True)
    await publish(url, Exchanges.COMMANDS, key, json.dumps(body).encode(), reply_to=name, message_id=name)

    async def answered() -> bool:
        return await ready(url, name) == 1

    await until(answered, f"{key} is answered")
    (answer,) = await letters(url, name)
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def test_commands_and_answers_do_not_wait_for_the_starts_before_them(
    bench: Bench, amqp_url: str, database_url: str
) -> None:
    aborted, _ = await _park(bench)
    answered, token = await _park(bench)
    settings = Settings(  # the others have defaults
        database_url=database_url, amqp_url=amqp_url, queue_type="classic"
    )
    stopping = asyncio.Event()
    start = {"workflow": "starts_slowly", "inputs": [{}], "user": "crm"}
    async with asyncio.TaskGroup() as tasks:
        async with await aio_pika.connect(amqp_url) as connection:
            exchange = await (await connection.channel()).get_exchange(Exchanges.COMMANDS, ensure=False)
            for number in range(STARTS):
                message = aio_pika.Message(json.dumps(start).encode(), message_id=f"start {number}")
                await exchange.publish(message, "workflow.start")
        tasks.create_task(run_coordinator(settings, stopping))

        async def is_full() -> bool:
            return await ready(amqp_url, Queues.COMMANDS) == STARTS - PREFETCH

        await until(is_full, "the coordinator has as many starts as it holds")
        assert (await _ask(amqp_url, "process.abort", {"process_id": str(aborted)}))["status"] == "aborted"
        backlog = await _ask(amqp_url, "backlog.get", {})
        assert (backlog["starts"], backlog["coordinators"]) == (STARTS - PREFETCH, 1)
        await publish(amqp_url, Exchanges.CALLBACKS, "callback.completed", b"{}", correlation_id=token)

        async def is_used() -> bool:
            return bool((await bench.row(answered))["status"] != "awaiting_callback")

        await until(is_used, "the answer is used")
        gates[-1].set()
        started = "SELECT count(*) = $1 FROM processes WHERE workflow = 'starts_slowly'"
        await until(lambda: bench.database.pool.fetchval(started, STARTS), "each start is a process")
        backlog = await _ask(amqp_url, "backlog.get", {})
        assert backlog["starts"] == 0
        assert backlog["per_second"] > 0
        stopping.set()


async def test_bindings_of_an_older_version_are_removed(bench: Bench, amqp_url: str) -> None:
    """They would bring each command twice, and the second time behind the starts."""
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(Queues.COMMANDS, ensure=False)
        await queue.bind(Exchanges.COMMANDS, "process.abort")
        await bench.publisher.check()
    await publish(amqp_url, Exchanges.COMMANDS, "process.abort", b"{}")
    assert (await ready(amqp_url, Queues.COMMANDS), await ready(amqp_url, Queues.CONTROL)) == (0, 1)


async def test_a_full_queue_of_starts_refuses_at_once_and_takes_commands(amqp_url: str, servers: Servers) -> None:
    """By the policy of deploy/rabbitmq/definitions.json, with a smaller number."""
    await Publisher(address(amqp_url), Topology.of("quorum"), 5).check()
    vhost = quote(urlsplit(amqp_url).path[1:], safe="")
    policy = {
        "pattern": r"^orchestrator\.commands$",
        "apply-to": "queues",
        "definition": {"max-length": 3, "overflow": "reject-publish"},
    }
    await asyncio.to_thread(servers.call, "PUT", f"policies/{vhost}/orchestrator.commands", policy)
    with pytest.raises(DeliveryError):
        for _ in range(1000):
            await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
    await publish(amqp_url, Exchanges.COMMANDS, "process.abort", b"{}")


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
async def test_more_starts_than_a_few_take_turns_which_begin_and_end_together_but_no_more_than_share_a_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch, is_behind: bool, together: int
) -> None:
    for name, value in (("LONGEST", 60), ("RECENTLY", 3600), ("REST", 0), ("REST_BEHIND", 0)):
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
    turn = starts.begun[waiting[0] :]
    await starts.end([turn[0], *turn[2:]])
    await asyncio.sleep(0)
    assert len(starts.begun) == waiting[0] + together, "a turn ends with the last of its starts"
    await starts.end([turn[1]])
    await starts.wait_for(waiting[0] + 2 * together, "so have the others, in the next turn")
    await starts.end(starts.begun[-together:])
    assert sorted(starts.begun) == [
        number for number in range(len(starts.tasks)) if number not in (waiting[0], waiting[2])
    ]
    assert not made.is_full
    if looking is not None:
        looking.cancel()


def _rest_for_ever(monkeypatch: pytest.MonkeyPatch, rests: str) -> None:
    values = {"REST": 0.0, "REST_BEHIND": 0.0, "LONGEST": 60, "RECENTLY": 3600, rests: 1e9}
    for name, value in values.items():
        monkeypatch.setattr(intake, name, value)
    monkeypatch.setattr(shares, "LONGEST_REST", 3600)


async def _stop(made: Intake) -> None:
    (stopping := asyncio.Event()).set()
    await made.run(stopping)


async def test_a_few_starts_do_not_rest_and_more_of_them_do_after_each_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rest_for_ever(monkeypatch, "REST")
    starts = Starts(made := Intake(database, _no_depth))
    for number in range(2 * MANY):
        starts.add(1)
        await starts.wait_for(number + 1, "it has begun")
        await starts.end([number])
    starts.add(MANY + 1)
    await starts.wait_for(3 * MANY, "all but one have begun")
    await starts.end(range(2 * MANY, 3 * MANY))
    await asyncio.sleep(0)
    assert (len(starts.begun), made.is_full) == (3 * MANY, True)
    await _stop(made)
    await starts.wait_for(3 * MANY + 1, "a program that stops waits for no rest")
    await starts.end([3 * MANY])


async def test_a_turn_while_running_work_is_behind_has_a_rest_of_its_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rest_for_ever(monkeypatch, "REST_BEHIND")
    starts = Starts(made := Intake(database, _no_depth))
    looking = await _fall_behind(monkeypatch, starts)
    starts.add(1)
    await until(lambda: made.is_full, "it waits for the end of the rest")
    assert starts.begun == [0]
    looking.cancel()
    await _stop(made)
    await starts.wait_for(2, "a program that stops waits for no rest")
    await starts.end([1])


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
