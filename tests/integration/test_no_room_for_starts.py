"""Starts for which there is no room: what is answered over HTTP, and where a message waits that came through which exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import httpx
import pytest

from orchestrator.api import context as api_context
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.topology import Exchanges, Queues
from orchestrator.db.session import Database
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartOutcome, StartRequest, start
from orchestrator.services.starter import AT_ONCE, Starter
from orchestrator.workflow import StepList, done, init, workflow
from tests.integration.api_client import lend_app, make_context
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.test_broker import consuming, letters
from tests.integration.waiting import until

FOREIGN = "crm.out"
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
STARTED = "SELECT count(*) FROM processes"


@workflow("Works")
def works() -> StepList:
    return init >> done


@workflow("Asks", run_predicate=lambda: True)
def asks() -> StepList:
    return init >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, works, asks) as made:
        async with database.transaction() as session:
            await ProgramPlans.load().register(session, "the test")
        yield made


@asynccontextmanager
async def no_room(database: Database, starter: Starter) -> AsyncIterator[None]:
    """Let as many starts wait as may at once; they go on when the block ends."""
    async with database.transaction() as session:
        await (await session.connection()).exec_driver_sql("LOCK TABLE processes IN EXCLUSIVE MODE")
        waiting = [asyncio.create_task(starter.start(StartRequest("works"))) for _ in range(AT_ONCE)]

        async def all_wait() -> bool:
            return bool(await watching.fetchval(BLOCKED) == AT_ONCE)

        watching = await database.connect()
        await until(all_wait, "as many wait as may")
        await watching.close()
        yield
    assert all(isinstance(one, StartOutcome) for one in await asyncio.gather(*waiting))


async def test_a_start_over_http_for_which_there_is_no_room_is_refused_in_time_and_says_what_to_do(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_context, "PATIENCE", 0.01)
    context = make_context(bench.database)
    with lend_app(context) as app:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example")
        async with client:
            async with no_room(bench.database, context.starter):
                refused = await client.post("/api/processes/works", headers={"Idempotency-Key": "order-1"})
            again = await client.post("/api/processes/works", headers={"Idempotency-Key": "order-1"})
    assert (refused.status_code, again.status_code) == (503, 201)
    document = refused.json()
    assert document["reasons"] == [{"key": "workflow.busy"}]
    assert document["detail"].startswith("'works' was not started: ")
    assert document["detail"].endswith("or the server is slow; send it again later")


@pytest.mark.parametrize("name", ["works", "asks"], ids=["without code of authors", "with code of authors"])
async def test_a_start_over_http_whose_key_a_running_step_has_used_is_refused_in_time_and_says_what_to_do(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(api_context, "PATIENCE", 0.2)
    context = make_context(bench.database)
    request = StartRequest(name, (), "ANONYMOUS", "order-1")
    with lend_app(context) as app:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example")
        async with client:
            async with bench.database.transaction() as session:
                await start(session, request, LIMITS)
                refused = await client.post(f"/api/processes/{name}", headers={"Idempotency-Key": "order-1"})
            again = await client.post(f"/api/processes/{name}", headers={"Idempotency-Key": "order-1"})
    assert (refused.status_code, again.status_code) == (503, 201)
    document = refused.json()
    assert document["reasons"] == [{"key": "workflow.busy"}]
    assert "the idempotency key 'order-1' has been used by a transaction that has not ended" in document["detail"]
    assert "send it again later" in document["detail"]
    assert await bench.database.pool.fetchval(STARTED) == 1


async def test_what_a_start_has_waited_on_the_short_way_it_does_not_wait_on_the_long_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter, request = Starter(bench.database, LIMITS, patience=60), StartRequest("works", key="order-1")
    left = list[float | None]()
    run = bench.database.author_code.run

    async def watch(workflow: str, act: Any, *, patience: float | None = None) -> StartOutcome:
        left.append(patience)
        return await run(workflow, act, patience=patience)

    monkeypatch.setattr(bench.database.author_code, "run", watch)
    async with bench.database.transaction() as session:
        await start(session, request, LIMITS)
        waiting = asyncio.create_task(starter.start(request))
        await until(lambda: bool(left), "the short way has given up")
    assert not (await waiting).created
    assert left[0] is not None
    assert left[0] < 60 - 0.04, "for the key it has waited 50 ms"


@pytest.mark.parametrize("exchange", [Exchanges.COMMANDS, FOREIGN])
async def test_a_start_without_room_waits_in_the_queue_or_is_refused_where_others_would_get_a_copy(
    bench: Bench, amqp_url: str, exchange: str
) -> None:
    """An exchange that is not the engine's may have other queues: a copy sent there would be a message that nobody has sent."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        if exchange == FOREIGN:
            await channel.declare_exchange(FOREIGN, "fanout")
            await (await channel.get_queue(Queues.COMMANDS)).bind(FOREIGN)
            await (await channel.declare_queue("theirs", durable=True)).bind(FOREIGN)
        body = json.dumps({"workflow": "works", "idempotency_key": "order-1"}).encode()
        starter = Starter(bench.database, LIMITS, patience=0.01)
        bench.handlers._starter = starter
        ends = list[bool]()

        async def take(delivery: Delivery) -> None:
            ends.append(await bench.handlers.take_command(delivery))

        async with consuming(amqp_url, bench.publisher, Queues.COMMANDS, take):
            async with no_room(bench.database, starter):
                message = aio_pika.Message(body, message_id="m", reply_to="theirs", correlation_id="c")
                await (await channel.get_exchange(exchange)).publish(message, "workflow.start")
                await until(lambda: bool(ends), "the message was taken")
            if exchange == Exchanges.COMMANDS:
                await until(lambda: ends[-1], "it was taken again")
    kinds = [one.type for one in await letters(amqp_url, "theirs")] if exchange == FOREIGN else []
    started = await bench.database.pool.fetchval(STARTED) - AT_ONCE
    assert (ends[0], kinds, started) == (
        (True, [None, "workflow.refused"], 0) if exchange == FOREIGN else (False, [], 1)
    )
