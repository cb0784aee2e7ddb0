"""Messages that are large: what is kept of them, and what a broker that refuses one does to the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Literal

import aio_pika
import pytest

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import LARGE, Publisher
from orchestrator.broker.topology import Exchanges, Queues
from orchestrator.coordinator.handlers import Handlers
from orchestrator.coordinator.queries import Queries
from orchestrator.db.session import Database
from orchestrator.errors import InvalidInputError, MessageError, RefusedError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.operations.dead_letters import letter_document, replay
from orchestrator.services.control import abort
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.subscriptions import set_in_sync
from orchestrator.text import MAX_REASON
from orchestrator.workflow import StepList, done, init, inputstep, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.letter_bench import fail, kept, publish, publishing, reading
from tests.integration.test_broker import letters
from tests.integration.test_queries import backlog

CHOICES = tuple(f"device-{number:06}" for number in range(3000))


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    async with publishing(amqp_url) as made:
        yield made


@inputstep("Choose", assignee="NOC")
def choose() -> FormGenerator:
    class Choice(FormPage):
        device: Literal[CHOICES]  # type: ignore[valid-type]

    page = yield Choice
    return page.model_dump()


@workflow("Asks for one of many")
def choose_one() -> StepList:
    return init >> choose >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, choose_one) as made:
        async with await aio_pika.connect(amqp_url) as connection:
            await (await connection.channel()).declare_queue("mine", durable=True)
        yield made


async def test_a_large_message_for_which_the_broker_closes_the_channel_harms_no_other_publish(
    publisher: Publisher, amqp_url: str
) -> None:
    """It does so, too, when a message is larger than its max_message_size: all that were on the way failed."""
    refused = Outgoing(
        Exchanges.COMMANDS, "workflow.start", "x", b"x" * LARGE, properties={"expiration": "not a number"}
    )
    small = Outgoing(Exchanges.COMMANDS, "workflow.start", "x", b"{}")
    outcomes = await asyncio.gather(
        *(publisher.publish(one) for one in (small, refused, *[small] * 50, refused, *[small] * 50)),
        return_exceptions=True,
    )
    assert [type(one) for one in outcomes if isinstance(one, BaseException)] == [RefusedError, RefusedError]
    large = Outgoing(Exchanges.COMMANDS, "workflow.start", "x", b"y" * LARGE)
    await publisher.publish(large)
    assert len(await letters(amqp_url, Queues.COMMANDS)) == 102


async def test_of_a_message_that_is_too_large_its_beginning_is_kept_and_replayed_it_cannot_be(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}, max_bytes=1000):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"x" * 500_000)
        (stored,) = await kept(database)
    assert stored.letter.body == b"x" * 1000
    assert "the message has 500000 bytes; at most 1000 are read" in stored.letter.reason
    document = letter_document(stored)
    assert (document["is_body_cut"], document["properties"]["whole_size"]) == (True, 500_000)
    with pytest.raises(MessageError, match="had 500000 bytes, of which the first 1000 are kept"):
        await replay(database, publisher, stored.summary.letter_id, "ana", LIMITS)


async def test_a_reply_that_is_too_large_is_replaced_by_a_small_refusal(bench: Bench, amqp_url: str) -> None:
    """A form may have a schema of any size."""
    process_id = await bench.start("choose_one")
    body = json.dumps({"process_id": str(process_id)}).encode()
    resume = replace(delivery("process.resume", body), reply_to="mine", correlation_id="c")
    await bench.handlers.take_command(resume)
    (whole,) = await letters(amqp_url, "mine")
    assert len(json.loads(whole.body)["form"]["properties"]["device"]["enum"]) == len(CHOICES)
    handlers = Handlers(bench.database, bench.publisher, bench.dispatcher, LIMITS, ProgramPlans.load(), max_reply=9000)
    await handlers.take_command(resume)
    (small,) = await letters(amqp_url, "mine")
    refusal = json.loads(small.body)
    assert (small.correlation_id, refusal["error"], refusal["form"]) == ("c", "FormIncompleteError", None)
    assert refusal["reasons"] == [{"key": "form.incomplete"}]
    assert f"the reply has {len(whole.body):,} bytes" in refusal["detail"]


@pytest.mark.parametrize(
    "reply_to", ["orchestrator.commands", "orchestrator.results", "orchestrator.steps.ims", "orchestrator.events.api"]
)
async def test_a_command_that_wants_its_reply_in_a_queue_of_the_engine_is_refused(bench: Bench, reply_to: str) -> None:
    command = replace(delivery("workflow.start", b'{"workflow": "choose_one"}'), reply_to=reply_to)
    with pytest.raises(MessageError, match="reply_to names a queue of the engine"):
        await bench.handlers.take_command(command)
    with pytest.raises(MessageError, match="reply_to names a queue of the engine"):
        await Queries(bench.database, bench.publisher, 1000, backlog).take(
            replace(command, routing_key="workflow.list")
        )
    assert await bench.database.pool.fetchval("SELECT count(*) FROM processes") == 0
    assert await letters(bench.address.url, Queues.COMMANDS) == []


async def test_a_reason_that_is_too_long_is_refused_at_every_entry_point(bench: Bench) -> None:
    """By message, and by the service that the command line and the HTTP API call."""
    process_id = await bench.start("choose_one")
    body = {"process_id": str(process_id), "reason": "x" * (MAX_REASON + 1)}
    with pytest.raises(MessageError, match=f"reason: String should have at most {MAX_REASON} characters"):
        await bench.handlers.take_command(delivery("process.abort", json.dumps(body).encode()))
    async with bench.database.transaction() as session:
        with pytest.raises(InvalidInputError, match=f"the reason has {MAX_REASON + 1} characters"):
            await abort(session, process_id, "ana", LIMITS, "x" * (MAX_REASON + 1))
        with pytest.raises(InvalidInputError, match=f"the reason has {MAX_REASON + 1} characters"):
            await set_in_sync(session, process_id, "ana", "x" * (MAX_REASON + 1))
    assert await bench.database.pool.fetchval("SELECT status FROM processes") == "suspended"
