"""Properties that the client library cannot read: RabbitMQ passes them on, and one sender must not stop everybody's messages."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from pamqp import encode

from orchestrator.broker.deliveries import Handler
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues, Topology
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.handlers import Handlers
from orchestrator.db.session import Database
from orchestrator.services.plans import ProgramPlans
from tests.integration.engine_bench import LIMITS
from tests.integration.test_broker import address, consuming, letters, ready
from tests.integration.waiting import until

LATIN = b"\x04caf\xe9"
UNREADABLE: dict[str, dict[str, Any]] = {
    "a short text": {"app_id": "CAFE"},
    "a header's name": {"headers": {"CAFE": "x"}},
    "a time beyond time": {"timestamp": 2**63},
}


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    made = Publisher(address(amqp_url), Topology.of("quorum"), 5)
    await made.open()
    yield made
    await made.close()


async def send(url: str, exchange: str, key: str, *messages: tuple[bytes, dict[str, Any]]) -> None:
    """Publish as a client library does that checks nothing."""
    short, text = encode.short_string, "CAFE"

    def unchecked(value: str) -> bytes:
        return LATIN if value == text else short(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "short_string", unchecked)  # for the names of headers
        for name, function in list(encode.METHODS.items()):
            if function is short:
                patch.setitem(encode.METHODS, name, unchecked)
        for body, properties in messages:
            number = properties.get("timestamp", 0)
            patch.setitem(encode.METHODS, "timestamp", lambda _, number=number: struct.pack(">Q", number))
            async with await aio_pika.connect(url) as connection:
                channel = await connection.channel()
                target = await channel.get_exchange(exchange, ensure=False)
                options = properties | ({"timestamp": 1} if number else {})
                await target.publish(aio_pika.Message(body, **options), key)


def collector(taken: list[Delivery]) -> Handler:
    async def take(delivery: Delivery) -> None:
        taken.append(delivery)

    return take


@pytest.mark.parametrize("what", UNREADABLE)
async def test_the_message_itself_and_those_behind_it_are_handled(
    amqp_url: str, publisher: Publisher, what: str
) -> None:
    taken: list[Delivery] = []
    healthy = [(b"healthy %d" % number, {"correlation_id": "a token"}) for number in range(5)]
    poison = (b"poison", {"correlation_id": "a token", **UNREADABLE[what]})
    await send(amqp_url, Exchanges.CALLBACKS, "callback.completed", poison, *healthy)
    async with consuming(amqp_url, publisher, Queues.CALLBACKS, collector(taken)):
        await until(lambda: len(taken) == 6, "all six are taken")
    assert {one.body for one in taken if one.unreadable is None} == {body for body, _ in healthy}
    (odd,) = (one for one in taken if one.unreadable is not None)
    (name,) = UNREADABLE[what]
    assert odd.unreadable is not None
    assert odd.unreadable.startswith(f"the message's property {name!r} cannot be read, nor those that follow it: ")
    # What stands before the property is read all the same; headers stand before the token.
    assert odd.correlation_id == (None if name == "headers" else "a token")
    assert await letters(amqp_url) == []
    assert await ready(amqp_url, Queues.CALLBACKS) == 0


@pytest.mark.parametrize(
    ("exchange", "key", "body", "reason"),
    [
        (Exchanges.CALLBACKS, "callback.completed", b"{}", "the callback has no correlation_id"),
        (
            Exchanges.COMMANDS,
            "workflow.start",
            b'{"workflow": "x"}',
            "whether this command was sent before cannot be known",
        ),
    ],
)
async def test_a_message_that_needs_what_cannot_be_read_is_a_dead_letter_that_says_so(
    amqp_url: str, database: Database, publisher: Publisher, exchange: str, key: str, body: bytes, reason: str
) -> None:
    dispatcher = Dispatcher(publisher, Announcer(publisher, database.pool))
    handlers = Handlers(database, publisher, dispatcher, LIMITS, ProgramPlans({}))
    handler = handlers.take_callback if exchange == Exchanges.CALLBACKS else handlers.take_command
    properties = {"correlation_id": "a token", "message_id": "of this start", **UNREADABLE["a header's name"]}
    await send(amqp_url, exchange, key, (body, properties))

    async def buried() -> bool:
        return await ready(amqp_url, Queues.LETTERS) == 1

    async with consuming(amqp_url, publisher, exchange, handler):
        await until(buried, "the message is a dead letter")
    (letter,) = await letters(amqp_url)
    assert reason in str(letter.headers["x-reason"])
    assert "the message's property 'headers' cannot be read" in str(letter.headers["x-reason"])


async def test_a_start_with_its_key_in_the_body_needs_no_properties(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    dispatcher = Dispatcher(publisher, Announcer(publisher, database.pool))
    handlers = Handlers(database, publisher, dispatcher, LIMITS, ProgramPlans({}))
    body = b'{"workflow": "unheard_of", "idempotency_key": "k"}'
    await send(amqp_url, Exchanges.COMMANDS, "workflow.start", (body, UNREADABLE["a header's name"]))

    async def buried() -> bool:
        return await ready(amqp_url, Queues.LETTERS) == 1

    async with consuming(amqp_url, publisher, Queues.COMMANDS, handlers.take_command):
        await until(buried, "the message is a dead letter")
    (letter,) = await letters(amqp_url)
    assert "NotFoundError" in str(letter.headers["x-reason"])
