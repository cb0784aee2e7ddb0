"""What one message, process or author's code must not do to all the others that the same program serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import Exchanges, step_queue
from orchestrator.db.session import Database
from orchestrator.errors import DefinitionError, MessageError, RefusedError, UnroutableError
from orchestrator.forms import AsyncFormGenerator
from orchestrator.messages import Advanced, encode
from orchestrator.services.reconcile import look
from orchestrator.workflow import StepList, conditional, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.waiting import until
from tests.servers import Servers

COMMAND = Outgoing(Exchanges.STEPS, "ims", "step.command", b"{}")


@step("Elsewhere", queue="ims")
async def elsewhere() -> None:
    return None


@step("Here")
async def here() -> None:
    return None


@workflow("On a queue of its own")
def own_queue() -> StepList:
    return init >> elsewhere >> done


@workflow("Here only")
def here_only() -> StepList:
    return init >> here >> done


def raise_no_text() -> bool:
    raise ValueError("no file caf\0 b\udcff")


@workflow("Its condition raises what is no text")
def no_text() -> StepList:
    return init >> conditional(raise_no_text)(here) >> done


async def ask_another_database() -> AsyncFormGenerator:
    other = create_async_engine("postgresql+asyncpg://ims:ims@127.0.0.1:1/ims")
    try:
        async with other.connect() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await other.dispose()
    yield {}


@workflow("Its form asks another database, which is away", initial_input_form=ask_another_database)
def asks_another() -> StepList:
    return init >> here >> done


async def ask_too_much(session: AsyncSession) -> AsyncFormGenerator:
    await session.execute(text("SET LOCAL statement_timeout = '50ms'"))
    await session.execute(text("SELECT pg_sleep(2)"))
    yield {}


@workflow("Its form asks for more time than its user has", initial_input_form=ask_too_much)
def asks_too_much() -> StepList:
    return init >> here >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    known = own_queue, here_only, no_text, asks_another, asks_too_much
    async with bench_of(database, amqp_url, monkeypatch, __name__, *known) as made:
        yield made


async def _make_unusable(bench: Bench, servers: Servers, channel: AbstractChannel, why: str) -> None:
    """Make the step queue ``ims`` one that takes no command."""
    if why == "other properties":
        await channel.declare_queue(step_queue("ims"), durable=True, arguments={"x-max-length": 5})
        with pytest.raises(UnroutableError, match="with other properties"):
            await bench.publisher.publish(COMMAND)
        return
    await bench.publisher.publish(COMMAND)
    policy = {"pattern": "ims$", "apply-to": "queues", "definition": {"max-length": 1, "overflow": "reject-publish"}}
    vhost = quote(urlsplit(bench.address.url).path[1:], safe="")
    await asyncio.to_thread(servers.call, "PUT", f"policies/{vhost}/full", policy)

    async def refuses() -> bool:
        try:
            await bench.publisher.publish(COMMAND)
        except RefusedError:
            return True
        return False

    await until(refuses, "the queue is full")
    with pytest.raises(
        RefusedError, match="with the key 'ims' was refused by the broker: a queue that it goes to is full"
    ):
        await bench.publisher.publish(COMMAND)


@pytest.mark.parametrize("why", ["other properties", "full"])
async def test_a_step_queue_that_takes_no_commands_does_not_keep_others_from_being_looked_at(
    bench: Bench, servers: Servers, why: str
) -> None:
    """One author's queue was made with other properties, or is full and refuses messages."""
    async with await aio_pika.connect(bench.address.url) as connection:
        channel = await connection.channel()
        await _make_unusable(bench, servers, channel, why)
        stuck, healthy = await bench.start("own_queue"), await bench.start("here_only")
        for process_id, seconds in ((stuck, 20), (healthy, 10)):
            await bench.database.pool.execute(
                "UPDATE processes SET due_at = now() - $2 * interval '1 s', wake_at = now() - $2 * interval '1 s',"
                " updated_at = now() - 2 * $2 * interval '1 s'"
                " WHERE process_id = $1",
                process_id,
                seconds,
            )
        await bench.reconciler().run_once()
        queue = await channel.get_queue(step_queue("default"))
        command = await queue.get(no_ack=True)
    assert command is not None
    assert command.correlation_id == str(healthy)


@pytest.mark.parametrize("why", ["other properties", "full"])
async def test_a_result_is_handled_when_the_queue_of_the_next_step_takes_no_commands(
    bench: Bench, servers: Servers, why: str
) -> None:
    """Kept, two hundred of them would keep a coordinator from every other result; the process is due in its row."""
    async with await aio_pika.connect(bench.address.url) as connection:
        await _make_unusable(bench, servers, await connection.channel(), why)
    process_id = await bench.start("own_queue")
    async with bench.database.transaction() as session:
        message = await look(session, process_id, LIMITS)
    assert message is not None
    assert message.next is not None
    assert message.next.queue == "ims"
    await bench.handlers.take_result(delivery("result", encode(message), kind="step.result"))
    await bench.announcer.write_marks()
    row = await bench.row(process_id)
    assert row["announced"] == row["sequence"], "its events are not published again with the command"
    assert row["due_at"] is not None


async def test_a_result_that_the_database_cannot_hold_is_a_dead_letter_and_the_next_ones_are_written(
    bench: Bench,
) -> None:
    """The results queue takes numbers of any size."""
    process_id = await bench.start("here_only")
    message = Advanced(
        process_id=uuid4(),
        workflow="here_only",
        target="SYSTEM",
        is_task=False,
        status="completed",
        sequence=1,
        user="me",
        at=datetime.now(UTC),
        entries=[],
    )
    huge = encode(message).replace(b'"sequence":1', b'"sequence":1099511627776')
    with pytest.raises(MessageError, match="sequence: Input should be less than 2147483648"):
        await bench.handlers.take_result(delivery("result", huge, kind="step.result"))

    good = message.model_copy(update={"process_id": process_id, "sequence": 2, "announced": 2})
    await bench.handlers.take_result(delivery("result", encode(good), kind="step.result"))
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.announcer.run(stopping))

    async def marked() -> bool:
        return bool((await bench.row(process_id))["announced"] == 2)

    await until(marked, "the mark is written")
    stopping.set()
    await running


async def test_what_a_condition_raises_is_stored_as_text_whatever_it_is(bench: Bench) -> None:
    """PostgreSQL and UTF-8 cannot hold every character of Python's."""
    process_id = await bench.start("no_text")
    assert (await bench.row(process_id))["status"] == "failed"


@pytest.mark.parametrize("name", ["asks_another", "asks_too_much"])
async def test_what_a_form_meets_elsewhere_is_not_an_outage_of_ours(bench: Bench, name: str) -> None:
    """Taken for one, the start would be tried again for ever."""
    with pytest.raises(DefinitionError, match="the form of"):
        await bench.start(name)
