"""Queries by message: what a service that speaks AMQP only can ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from orchestrator.broker.connection import connect, declare
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.coordinator.queries import Queries
from orchestrator.db.session import Database
from orchestrator.errors import MessageError
from orchestrator.query_messages import BacklogFound
from orchestrator.workflow import StepList, begin, callback_step, done, init, step, workflow
from tests.integration.engine_bench import Bench, bench_of, delivery
from tests.integration.test_broker import letters, ready
from tests.shipped import SHIPPED

SIZE = 100_000


@step("Fill")
def fill() -> dict[str, Any]:
    return {"large": "x" * 20_000, "small": 1}


@step("Fail")
def fail() -> None:
    raise ValueError("no such device")


@step("Send")
def send(callback_token: str) -> dict[str, Any]:
    return {"sent": len(callback_token)}


@step("Check")
def check() -> None:
    """Do nothing."""


@workflow("Fills its state and fails")
def fill_and_fail() -> StepList:
    return begin >> fill >> fail >> done


@workflow("Waits")
def wait_for_it() -> StepList:
    return init >> callback_step("Delivery", send, check) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, fill_and_fail, wait_for_it) as made:
        async with await aio_pika.connect(amqp_url) as connection:
            await (await connection.channel()).declare_queue("mine", durable=True)
        yield made


async def backlog() -> BacklogFound:
    return BacklogFound(starts=3817, coordinators=2, per_second=61.3, seconds=31.5)


async def ask(
    bench: Bench, url: str, key: str, body: object, *, max_bytes: int = SIZE
) -> tuple[AbstractIncomingMessage, Any]:
    query = replace(delivery(key, json.dumps(body).encode()), correlation_id="c", reply_to="mine")
    await Queries(bench.database, bench.publisher, max_bytes, backlog).take(query)
    (answer,) = await letters(url, "mine")
    assert answer.correlation_id == "c"
    return answer, json.loads(answer.body)


async def test_a_process_is_found_with_its_log_and_state_and_without_a_token(bench: Bench, amqp_url: str) -> None:
    process_id = await bench.start("wait_for_it")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    parent = uuid4()
    await bench.database.pool.execute("UPDATE processes SET parent_id = $1 WHERE process_id = $2", parent, process_id)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    answer, body = await ask(bench, amqp_url, "process.get", {"process_id": str(process_id)})
    assert answer.type == "process.found"
    assert (body["process_id"], body["workflow"], body["status"]) == (
        str(process_id),
        "wait_for_it",
        "awaiting_callback",
    )
    assert body["parent_id"] == str(parent)
    assert [one["sequence"] for one in body["steps"]] == list(range(1, body["sequence"] + 1))
    assert (body["state"]["sent"], body["left_out"]) == (len(token), [])
    assert token not in answer.body.decode()


async def test_what_would_make_an_answer_too_large_is_left_out_and_said(bench: Bench, amqp_url: str) -> None:
    process_id = await bench.start("fill_and_fail")
    runner = await bench.runner()
    await bench.run_step(process_id, runner, "running")
    await bench.run_step(process_id, runner, "failed")
    _, body = await ask(bench, amqp_url, "process.get", {"process_id": str(process_id)})
    assert (body["state"]["small"], body["left_out"]) == (1, [])
    failed = [one["failure"] for one in body["steps"] if one["failure"]]
    assert failed == [{"type": "ValueError", "message": "no such device"}]
    answer, body = await ask(bench, amqp_url, "process.get", {"process_id": str(process_id)}, max_bytes=10_000)
    assert len(answer.body) <= 10_000
    assert (body["state"], body["status"]) == (None, "failed")
    assert body["left_out"] == ["steps", "state"]
    answer, body = await ask(bench, amqp_url, "process.get", {"process_id": str(process_id)}, max_bytes=10)
    assert (answer.type, body["error"]) == ("workflow.refused", "InvalidInputError")


async def test_the_workflows_are_listed(bench: Bench, amqp_url: str) -> None:
    answer, body = await ask(bench, amqp_url, "workflow.list", {})
    assert answer.type == "workflow.listed"
    assert [one["name"] for one in body["workflows"]] == sorted(("fill_and_fail", "wait_for_it", *SHIPPED))


@pytest.mark.parametrize(
    ("key", "body"),
    [("process.get", {"process_id": str(uuid4())}), ("subscription.get", {"subscription_id": str(uuid4())})],
)
async def test_what_is_not_there_is_refused_and_makes_no_dead_letter(
    bench: Bench, amqp_url: str, key: str, body: object
) -> None:
    answer, refusal = await ask(bench, amqp_url, key, body)
    assert (answer.type, refusal["error"], refusal["reasons"]) == (
        "workflow.refused",
        "NotFoundError",
        [{"key": "not_found"}],
    )


@pytest.mark.parametrize("key", ["process.get", "subscription.get", "workflow.list"])
async def test_a_query_that_cannot_be_understood_is_refused_and_a_dead_letter(
    bench: Bench, amqp_url: str, key: str
) -> None:
    with pytest.raises(MessageError):
        await ask(bench, amqp_url, key, {"unknown": 1})
    (answer,) = await letters(amqp_url, "mine")
    assert json.loads(answer.body)["error"] == "MessageError"


async def test_a_query_without_a_queue_for_the_answer_is_a_dead_letter(bench: Bench) -> None:
    with pytest.raises(MessageError, match="set reply_to"):
        await Queries(bench.database, bench.publisher, SIZE, backlog).take(delivery("workflow.list", b"{}"))


async def test_an_answer_that_nobody_waits_for_is_dropped(bench: Bench) -> None:
    query = replace(delivery("workflow.list", b"{}"), reply_to="gone")
    await Queries(bench.database, bench.publisher, SIZE, backlog).take(query)


async def test_the_broker_routes_queries_to_the_coordinators(amqp_url: str) -> None:
    connection = await connect_and_declare(amqp_url)
    await connection.close()
    async with await aio_pika.connect(amqp_url) as other:
        channel = await other.channel(on_return_raises=True)
        exchange = await channel.get_exchange(Exchanges.COMMANDS, ensure=False)
        for key in ("process.get", "subscription.get", "workflow.list", "backlog.get"):
            await exchange.publish(aio_pika.Message(b"{}"), key, mandatory=True)
    assert await ready(amqp_url, Queues.CONTROL) == 4


async def test_a_sender_can_ask_how_many_starts_wait(bench: Bench, amqp_url: str) -> None:
    answer, found = await ask(bench, amqp_url, "backlog.get", {})
    assert answer.type == "backlog.found"
    assert found == {"version": 1, "starts": 3817, "coordinators": 2, "per_second": 61.3, "seconds": 31.5}


async def connect_and_declare(url: str) -> Any:
    from tests.integration.test_broker import address

    connection = await connect(address(url), "test")
    await declare(connection, Topology.of("classic"))
    return connection
