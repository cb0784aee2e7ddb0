"""Publishing and consuming on a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import aio_pika
import pytest

from orchestrator.broker import arrivals
from orchestrator.broker import deliveries as broker_deliveries
from orchestrator.broker.connection import BrokerAddress, connect, declare, measure
from orchestrator.broker.deliveries import Deliveries, Handler, RequeueError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import EXCHANGES, Exchanges, Queues, Topology, step_queue
from orchestrator.errors import (
    ConfigurationError,
    MessageError,
    PublishError,
    RefusedError,
    ServerUnavailableError,
    UnroutableError,
)
from tests.integration.waiting import until
from tests.servers import Servers

TOPOLOGY = Topology.of("quorum")
COMMAND = Outgoing(Exchanges.COMMANDS, "workflow.start", "workflow.start", b"{}")


def address(url: str) -> BrokerAddress:
    return BrokerAddress(url, "test", 30)


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    made = Publisher(address(amqp_url), TOPOLOGY, 5)
    running = asyncio.create_task(made.run())
    await until(lambda: made.is_ready, "the publisher is connected")
    yield made
    await made.stop()
    await running


@asynccontextmanager
async def consuming(
    url: str, publisher: Publisher, queue: str, handler: Handler, **options: int
) -> AsyncIterator[Deliveries]:
    deliveries = Deliveries(
        address(url),
        TOPOLOGY,
        {queue: handler},
        prefetch=options.get("prefetch", 10),
        max_bytes=options.get("max_bytes", 1000),
        explain_transient=lambda error: "away" if isinstance(error, ConnectionResetError) else None,
        publisher=publisher,
        lingering={queue} if options.get("lingering") else (),
    )
    running = asyncio.create_task(deliveries.run())
    await asyncio.wait_for(deliveries.consuming.wait(), 60)
    try:
        yield deliveries
    finally:
        await deliveries.stop(5)
        await running


async def letters(url: str, queue: str = Queues.LETTERS) -> list[aio_pika.abc.AbstractIncomingMessage]:
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel()
        found = []
        source = await channel.get_queue(queue)
        while (message := await source.get(fail=False, no_ack=True)) is not None:
            found.append(message)
        return found


async def ready(url: str, queue: str) -> int:
    connection = await connect(address(url), "test")
    try:
        depth = await measure(connection, queue)
        return -1 if depth is None else depth.ready
    finally:
        await connection.close()


async def test_the_topology_can_be_declared_again_and_again(amqp_url: str, servers: Servers) -> None:
    """B41: named exchanges per kind of writer, named queues per kind of reader."""
    connection = await connect(address(amqp_url), "test")
    for _ in range(2):
        await declare(connection, TOPOLOGY)
    await connection.close()
    vhost = urlsplit(amqp_url).path[1:]
    queues = servers.call("GET", f"queues/{vhost}")
    assert isinstance(queues, list)
    assert {queue["name"]: queue["type"] for queue in queues} == dict.fromkeys(
        (queue.name for queue in TOPOLOGY.queues), "quorum"
    )
    exchanges = servers.call("GET", f"exchanges/{vhost}")
    assert isinstance(exchanges, list)
    ours = {exchange["name"]: exchange["type"] for exchange in exchanges if exchange["name"].startswith("orchestrator")}
    assert ours == {exchange.name.value: exchange.type for exchange in EXCHANGES}


async def test_a_topology_that_differs_is_refused_with_a_reason(amqp_url: str) -> None:
    connection = await connect(address(amqp_url), "test")
    await declare(connection, TOPOLOGY)
    with pytest.raises(ConfigurationError, match="ORCHESTRATOR_QUEUE_TYPE"):
        await declare(connection, Topology.of("classic"))
    await connection.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"port": 1}, "refused|Connect call failed"),
        ({"password": "wrong"}, "ACCESS_REFUSED|authentication|Login was refused|PLAIN"),
        ({"vhost": "missing"}, "the virtual host does not exist"),
    ],
)
async def test_a_broker_that_cannot_be_used_is_one_line(
    servers: Servers, amqp_url: str, wrong: dict[str, str | int], words: str
) -> None:
    parts = urlsplit(amqp_url)
    url = (
        f"amqp://{parts.username}:{wrong.get('password', parts.password)}@{parts.hostname}:{wrong.get('port', parts.port)}"
        f"/{wrong.get('vhost', parts.path[1:])}"
    )
    with pytest.raises(ServerUnavailableError, match=words) as caught:
        await connect(address(url), "test")
    assert "\n" not in str(caught.value)
    assert "ORCHESTRATOR_AMQP_URL" in str(caught.value)
    assert str(parts.password) not in str(caught.value)


async def test_a_confirmed_message_is_in_its_queue(publisher: Publisher, amqp_url: str) -> None:
    await asyncio.gather(*(publisher.publish(COMMAND) for _ in range(50)))
    await until(lambda: _is(ready(amqp_url, Queues.COMMANDS), 50), "the queue holds all messages")


async def test_a_message_that_no_queue_takes_is_an_error(publisher: Publisher) -> None:
    with pytest.raises(UnroutableError, match="no queue takes"):
        await publisher.publish(Outgoing("", "nobody", "x", b"{}"))
    with pytest.raises(UnroutableError, match=r"to 'orchestrator\.commands': no queue takes the key 'unknown\.key'"):
        await publisher.publish(Outgoing(Exchanges.COMMANDS, "unknown.key", "x", b"{}"))


async def test_an_event_needs_nobody_to_listen(publisher: Publisher) -> None:
    await publisher.publish(Outgoing(Exchanges.EVENTS, "process.x.running", "process.event", b"{}", mandatory=False))


async def test_a_new_step_queue_is_declared_by_the_first_command_for_it(publisher: Publisher, amqp_url: str) -> None:
    await publisher.publish(Outgoing(Exchanges.STEPS, "ims", "step.command", b"{}"))
    await until(lambda: _is(ready(amqp_url, step_queue("ims")), 1), "the new queue holds the command")


async def test_publishing_without_a_broker_ends_with_an_error_in_time(amqp_url: str) -> None:
    lonely = Publisher(address(amqp_url), TOPOLOGY, 0.2)
    with pytest.raises(PublishError, match=r"within 0\.2 s"):
        await lonely.publish(COMMAND)


async def test_publishing_goes_on_after_the_connection_was_closed_by_an_operator(
    publisher: Publisher, amqp_url: str, servers: Servers
) -> None:
    vhost = urlsplit(amqp_url).path[1:]

    async def close_all() -> bool:
        found = await asyncio.to_thread(servers.call, "GET", f"vhosts/{vhost}/connections")
        assert isinstance(found, list)
        for one in found:
            await asyncio.to_thread(servers.call, "DELETE", f"connections/{quote(one['name'], safe='')}")
        return bool(found)

    # The management API learns of a new connection some seconds after it was made.
    await until(close_all, "the management API has shown and closed the connection")
    await until(lambda: not publisher.is_ready, "the publisher has noticed")
    await publisher.publish(COMMAND)


async def test_a_handled_message_is_acknowledged(publisher: Publisher, amqp_url: str) -> None:
    seen: list[Delivery] = []

    async def take(delivery: Delivery) -> None:
        seen.append(delivery)

    await publisher.publish(COMMAND)
    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await until(lambda: len(seen) == 1, "the message is handled")
    assert (seen[0].type, seen[0].routing_key, seen[0].body) == ("workflow.start", "workflow.start", b"{}")
    assert seen[0].message_id
    assert await ready(amqp_url, Queues.COMMANDS) == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MessageError("it is nonsense"), "it is nonsense"),
        (ZeroDivisionError("a defect"), "internal error: ZeroDivisionError: a defect"),
        (MessageError("no file caf\udce9"), "no file caf?"),
    ],
)
async def test_a_message_that_cannot_be_handled_is_dead_lettered_with_the_reason(
    publisher: Publisher, amqp_url: str, error: Exception, reason: str
) -> None:
    """B41."""

    async def take(_: Delivery) -> None:
        raise error

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await publisher.publish(COMMAND)
        await until(lambda: _is(ready(amqp_url, Queues.LETTERS), 1), "the message is dead-lettered")
    (letter,) = await letters(amqp_url)
    assert letter.headers["x-reason"] == reason
    assert letter.headers["x-queue"] == Queues.COMMANDS
    assert letter.body == b"{}"
    assert await ready(amqp_url, Queues.COMMANDS) == 0


async def test_a_message_that_is_too_large_is_dead_lettered_unread(publisher: Publisher, amqp_url: str) -> None:
    async def take(_: Delivery) -> None:
        pytest.fail("it must not be read")

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take, max_bytes=10):
        await publisher.publish(Outgoing(Exchanges.COMMANDS, "workflow.start", "x", b"x" * 11))
        await until(lambda: _is(ready(amqp_url, Queues.LETTERS), 1), "the message is dead-lettered")
    (letter,) = await letters(amqp_url)
    assert "11 bytes" in str(letter.headers["x-reason"])


async def test_a_dead_letter_fits_into_its_frame_whatever_its_sender_has_put_into_headers(
    publisher: Publisher, amqp_url: str
) -> None:
    """Too large a frame would cost us the connection, again and again."""

    async def take(_: Delivery) -> None:
        raise MessageError("it is nonsense " * 100)

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        async with await aio_pika.connect(amqp_url) as connection:
            exchange = await (await connection.channel()).get_exchange(Exchanges.COMMANDS, ensure=False)
            await exchange.publish(aio_pika.Message(b"{}", headers={"workflow": "x" * 130_500}), "workflow.start")
        await until(lambda: _is(ready(amqp_url, Queues.LETTERS), 1), "the message is dead-lettered")
    (letter,) = await letters(amqp_url)
    assert letter.headers["workflow"] == "x" * 1000


async def test_a_message_that_cannot_be_dead_lettered_is_requeued(
    publisher: Publisher, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours must not leave it with a program that has forgotten it."""
    monkeypatch.setattr(broker_deliveries, "REQUEUE_AFTER", 0.1)
    dead_letter, tries = Deliveries._dead_letter, []

    async def fail_once(self: Deliveries, delivery: Delivery, *rest: Any) -> None:
        tries.append(delivery.redelivered)
        if len(tries) == 1:
            raise MessageError("it cannot be dead-lettered")
        await dead_letter(self, delivery, *rest)

    monkeypatch.setattr(Deliveries, "_dead_letter", fail_once)

    async def take(_: Delivery) -> None:
        raise MessageError("it is nonsense")

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await publisher.publish(COMMAND)
        await until(lambda: _is(ready(amqp_url, Queues.LETTERS), 1), "the message is dead-lettered", 60)
    assert tries[:2] == [False, True]  # and again, if the broker was slow to confirm the letter


async def test_a_dead_letter_queue_that_refuses_letters_loses_them_and_nothing_else(
    publisher: Publisher, amqp_url: str, servers: Servers
) -> None:
    """Kept, as many as the prefetch would keep a program from every other message."""
    policy = {
        "pattern": "letters$",
        "apply-to": "queues",
        "definition": {"max-length": 1, "overflow": "reject-publish"},
    }
    await asyncio.to_thread(servers.call, "PUT", f"policies/{urlsplit(amqp_url).path[1:]}/full", policy)

    async def refuses() -> bool:
        try:
            await publisher.publish(Outgoing(Exchanges.DEAD, "", "x", b"{}"))
        except RefusedError:
            return True
        return False

    await until(refuses, "the dead-letter queue is full")
    taken: list[bytes] = []

    async def take(delivery: Delivery) -> None:
        if delivery.body == b"nonsense":
            raise MessageError("it is nonsense")
        taken.append(delivery.body)

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take, prefetch=2):
        for body in (b"nonsense", b"nonsense", b"nonsense", b"{}"):
            await publisher.publish(replace(COMMAND, body=body))
        await until(lambda: taken == [b"{}"], "the message behind them is handled")


async def test_a_message_is_kept_while_a_server_is_away(publisher: Publisher, amqp_url: str) -> None:
    """Never put back: a quorum queue counts that and drops valid messages in the end."""
    tries: list[bool] = []

    async def take(delivery: Delivery) -> None:
        tries.append(delivery.redelivered)
        if len(tries) < 4:
            raise ConnectionResetError("the database is away")

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await publisher.publish(COMMAND)
        await until(lambda: len(tries) == 4, "the message is handled at the fourth try")
    assert tries == [False] * 4
    assert await letters(amqp_url) == []
    assert await ready(amqp_url, Queues.COMMANDS) == 0


async def test_what_has_not_begun_is_given_back_when_the_program_stops(publisher: Publisher, amqp_url: str) -> None:
    async def take(_: Delivery) -> None:
        raise RequeueError

    await publisher.publish(COMMAND)
    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await until(lambda: _is(ready(amqp_url, Queues.COMMANDS), 0), "the message is delivered")
    await until(lambda: _is(ready(amqp_url, Queues.COMMANDS), 1), "the message is back in its queue")


async def test_what_has_begun_finishes_before_the_program_stops(publisher: Publisher, amqp_url: str) -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def take(_: Delivery) -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    await publisher.publish(COMMAND)
    async with consuming(amqp_url, publisher, Queues.COMMANDS, take) as deliveries:
        await asyncio.wait_for(begun.wait(), 60)
        stopping = asyncio.create_task(deliveries.stop(10))
        may_end.set()
        await stopping
    assert ended.is_set()
    assert await ready(amqp_url, Queues.COMMANDS) == 0


async def test_what_is_handled_in_the_last_moment_is_acknowledged_before_the_connection_is_closed(
    publisher: Publisher, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LINGER", 3600)
    taken: list[bytes] = []
    ends: list[Deliveries] = []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery.body)
        for one in ends:
            one.suspend("the connection is closed now")

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take, lingering=True) as deliveries:
        ends.append(deliveries)
        await publisher.publish(replace(COMMAND, body=b"first"))
        await until(lambda: not deliveries.consuming.is_set(), "the connection is closed")
    ends.clear()
    # One that was delivered again would be the first in the queue.
    await publisher.publish(replace(COMMAND, body=b"second"))
    async with consuming(amqp_url, publisher, Queues.COMMANDS, take):
        await until(lambda: len(taken) > 1, "the next message is handled")
    assert taken == [b"first", b"second"]


async def test_a_queue_deleted_by_an_operator_is_declared_and_consumed_again(
    publisher: Publisher, amqp_url: str, servers: Servers
) -> None:
    seen: list[Delivery] = []

    async def take(delivery: Delivery) -> None:
        seen.append(delivery)

    async with consuming(amqp_url, publisher, Queues.COMMANDS, take) as deliveries:
        vhost = urlsplit(amqp_url).path[1:]
        await asyncio.to_thread(servers.call, "DELETE", f"queues/{vhost}/{Queues.COMMANDS}")
        await until(lambda: not deliveries.consuming.is_set(), "the consumer has noticed")
        await publisher.publish(COMMAND)
        await until(lambda: len(seen) == 1, "the message is handled")


async def _is(asked: Awaitable[int], expected: int) -> bool:
    return await asked == expected
