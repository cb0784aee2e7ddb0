"""Dead letters on real servers: what is kept of a message, and what becomes of it when people replay or discard it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import pytest

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer, Publisher
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.db.session import Database
from orchestrator.errors import ConflictError, NotFoundError, PublishError
from orchestrator.operations.dead_letters import discard, keep, letter_document, replay
from tests.integration.engine_bench import LIMITS
from tests.integration.letter_bench import HEADERS, SENT, fail, kept, only, publish, publishing, reading
from tests.integration.test_broker import address, letters, ready


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    async with publishing(amqp_url) as made:
        yield made


async def test_a_letter_has_everything_that_its_sender_has_set_under_its_own_name(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    user = urlsplit(amqp_url).username
    process_id = uuid4()
    body = {"process_id": str(process_id), "inputs": [{"name": "ä"}]}
    async with reading(amqp_url, database, publisher, {Queues.CONTROL.value: fail}):
        await publish(
            amqp_url,
            Exchanges.COMMANDS,
            "process.resume",
            json.dumps(body).encode(),
            message_id="order-4711",
            correlation_id="answer-to-me",
            app_id="crm",
            user_id=user,
            timestamp=SENT,
            type="a kind",
            content_type="application/json",
            reply_to="svc.crm.replies",
            expiration=600,
            priority=4,
            headers=HEADERS | {"workflow": "create_port", "step": "Choose a VLAN"},
        )
        (stored,) = await kept(database)
    document = letter_document(stored)
    expected = {
        "message_id": "order-4711",
        "correlation_id": "answer-to-me",
        "app_id": "crm",
        "user_id": user,
        "type": "a kind",
        "timestamp": "2026-11-26T07:30:00+00:00",
        "content_type": "application/json",
        "reply_to": "svc.crm.replies",
    }
    assert {name: document[name] for name in expected} == expected
    assert stored.summary.properties["expiration"] == "600000"
    assert stored.summary.properties["priority"] == 4
    shown = HEADERS | {"when": "2026-11-26T07:30:00+00:00", "workflow": "create_port", "step": "Choose a VLAN"}
    del shown["x-reason"]
    assert document["headers"] == shown
    assert (document["reason"], document["queue"]) == ("it is nonsense", "orchestrator.control")
    assert (document["exchange"], document["routing_key"]) == ("orchestrator.commands", "process.resume")
    assert (document["process_id"], document["workflow"], document["step"]) == (
        process_id,
        "create_port",
        "Choose a VLAN",
    )
    assert abs((datetime.now(UTC) - document["died_at"]).total_seconds()) < 60
    assert (document["body"], document["body_encoding"]) == (body, "json")


async def test_the_message_in_the_dead_letter_exchange_has_the_senders_properties_too(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    """Other queues may be bound to it, and without a coordinator the letters wait in ours."""
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            mine = await channel.declare_queue("mine", durable=True)
            await mine.bind(Exchanges.DEAD.value)
        await publish(
            amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}", message_id="m", app_id="crm", headers=HEADERS
        )
        letter = await only(amqp_url, "mine")
    assert (letter.message_id, letter.app_id) == ("m", "crm")
    assert (letter.headers["tenant"], letter.headers["tries"]) == ("north", 3)
    assert letter.headers["x-reason"] == "it is nonsense"


async def test_a_replayed_message_is_the_original_with_its_message_id_and_there_is_one(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(
            amqp_url,
            Exchanges.COMMANDS,
            "workflow.start",
            b'{"workflow": "x"}',
            message_id="order-4711",
            correlation_id="c",
            app_id="crm",
            timestamp=SENT,
            type="t",
            reply_to="svc.crm.replies",
            headers=HEADERS,
        )
        (stored,) = await kept(database)
    letter_id = stored.summary.letter_id
    summary = await replay(database, publisher, letter_id, "ana", LIMITS)
    assert (summary.outcome, summary.closed_by) == ("replayed", "ana")
    message = await only(amqp_url, Queues.COMMANDS)
    assert message.routing_key == "workflow.start"
    assert (message.message_id, message.correlation_id, message.app_id) == ("order-4711", "c", "crm")
    assert (message.timestamp, message.type, message.reply_to) == (SENT, "t", "svc.crm.replies")
    assert message.body == b'{"workflow": "x"}'
    expected = HEADERS | {"x-replay-of": str(letter_id)}
    del expected["x-reason"]
    assert {name: message.headers[name] for name in expected} == expected
    assert set(message.headers) - set(expected) <= {"x-delivery-count"}
    with pytest.raises(ConflictError, match="was replayed by ana"):
        await replay(database, publisher, letter_id, "ben", LIMITS)
    with pytest.raises(ConflictError, match="was replayed by ana"):
        await discard(database, letter_id, "ben")
    assert await ready(amqp_url, Queues.COMMANDS) == 0


async def test_a_message_without_an_id_gets_the_letters_so_that_a_second_replay_does_nothing_more(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
        (stored,) = await kept(database)
    # The client library gives every message an id; a sender with another one may not.
    async with database.transaction() as session:
        letter = replace(stored.letter, letter_id=None, properties={}, digest=b"another")
        letter_id = await keep(session, letter, is_redelivered=False)
    assert letter_id is not None
    await replay(database, publisher, letter_id, "ana", LIMITS)
    assert (await only(amqp_url, Queues.COMMANDS)).message_id == str(letter_id)


class Dies(Publisher):
    """A publisher whose program is killed after the confirm, or before the message is sent."""

    def __init__(self, real: Publisher, *, after: bool) -> None:
        self.real, self.after = real, after

    async def publish(self, message: Outgoing) -> Answer:
        if self.after:
            await self.real.publish(message)
        raise asyncio.CancelledError


@pytest.mark.parametrize("after", [False, True])
async def test_a_replay_that_is_killed_leaves_the_letter_or_both_but_never_neither(
    amqp_url: str, database: Database, publisher: Publisher, after: bool
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}", message_id="order-4711")
        (stored,) = await kept(database)
    with pytest.raises(asyncio.CancelledError):
        await replay(database, Dies(publisher, after=after), stored.summary.letter_id, "ana", LIMITS)
    assert [one.message_id for one in await letters(amqp_url, Queues.COMMANDS)] == (["order-4711"] if after else [])
    await kept(database)
    await replay(database, publisher, stored.summary.letter_id, "ana", LIMITS)
    assert (await only(amqp_url, Queues.COMMANDS)).message_id == "order-4711", "the start is recognised by its id"


async def test_of_many_replays_at_once_one_publishes(amqp_url: str, database: Database, publisher: Publisher) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
        (stored,) = await kept(database)
    found = await asyncio.gather(
        *(replay(database, publisher, stored.summary.letter_id, "ana", LIMITS) for _ in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ConflictError) for one in found) == 3
    await only(amqp_url, Queues.COMMANDS)


async def test_a_replay_without_a_broker_leaves_the_letter_open(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
        (stored,) = await kept(database)
    lonely = Publisher(address(amqp_url), Topology.of("quorum"), 0.2)
    with pytest.raises(PublishError):
        await replay(database, lonely, stored.summary.letter_id, "ana", LIMITS)
    await kept(database)


async def test_what_does_not_exist_can_be_neither_replayed_nor_discarded(
    database: Database, publisher: Publisher
) -> None:
    with pytest.raises(NotFoundError):
        await replay(database, publisher, uuid4(), "ana", LIMITS)
    with pytest.raises(NotFoundError):
        await discard(database, uuid4(), "ana")


async def test_a_discarded_letter_says_by_whom_and_is_forgotten_after_a_while(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
        (stored,) = await kept(database)
        summary = await discard(database, stored.summary.letter_id, "ana")
        assert (summary.outcome, summary.closed_by) == ("discarded", "ana")
        await kept(database, 0)
        await database.pool.execute("UPDATE dead_letters SET closed_at = now() - interval '31 days'")
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}")
        await kept(database)
    assert await database.pool.fetchval("SELECT count(*) FROM dead_letters") == 1
