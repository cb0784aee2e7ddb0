"""Running work goes before new work: many starts at once, and what commands, answers and senders notice of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.exceptions import DeliveryError

from orchestrator.broker import outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.coordinator.intake import PREFETCH, Intake
from orchestrator.coordinator.program import run_coordinator
from orchestrator.db.session import Database
from orchestrator.forms import FormPage
from orchestrator.services.control import abort
from orchestrator.settings import Settings
from orchestrator.workflow import StepList, callback_step, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
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


async def test_requests_are_noted_and_outcomes_of_steps_are_not(
    bench: Bench, amqp_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a command, or over HTTP, from where a message about the process comes without a step."""
    noted = 0

    def note(_: Intake) -> None:
        nonlocal noted
        noted += 1

    monkeypatch.setattr(Intake, "note_request", note)
    settings = Settings(  # the others have defaults
        database_url=database_url, amqp_url=amqp_url, queue_type="classic"
    )
    stopping = asyncio.Event()
    process_id, _ = await _park(bench)
    changed, _ = await _park(bench)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_coordinator(settings, stopping))

        async def is_announced(one: UUID) -> bool:
            row = await bench.row(one)
            return bool(row["announced"] == row["sequence"])

        await until(lambda: is_announced(process_id), "the outcome of its step is handled")
        await until(lambda: is_announced(changed), "so is the other one's")
        await _ask(amqp_url, "backlog.get", {})
        assert noted == 0, "who watches the starts that wait does not slow them"
        await _ask(amqp_url, "process.abort", {"process_id": str(process_id)})
        assert noted == 1
        async with bench.database.transaction() as session:
            await abort(session, changed, "me", LIMITS, "no need")
        await bench.publisher.publish(outgoing.look(changed, "wait_for_it"))
        await until(lambda: is_announced(changed), "the change is handled")
        assert noted == 2
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
