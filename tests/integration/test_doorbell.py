"""A program is woken by events, at its own pace, also after a lost connection; nobody else waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote, urlsplit

import pytest
from structlog.testing import capture_logs

from orchestrator.broker import doorbell as module
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.doorbell import Doorbell
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Topology
from tests.integration.waiting import until
from tests.servers import Servers

TOPOLOGY = Topology.of("quorum")
EVENT = Outgoing(Exchanges.EVENTS, "process.w.running", "process.event", b"{}", optional=True)


@pytest.fixture
async def bell(amqp_url: str) -> AsyncIterator[Doorbell]:
    made = Doorbell(BrokerAddress(amqp_url, "test", 30), TOPOLOGY, "api-1")
    made.want(True)
    running = asyncio.create_task(made.run())
    await until(lambda: made.is_connected, "there is a queue")
    yield made
    made.stop()
    await running


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    made = Publisher(BrokerAddress(amqp_url, "test", 30), TOPOLOGY, 5)
    await made.open()
    yield made
    await made.close()


async def rings(bell: Doorbell, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await bell.wait(seconds)
    return loop.time() - began < seconds


async def hear_all(bell: Doorbell) -> None:
    """Hear also what comes when the queue's only place is free again."""
    while await rings(bell, 1):
        pass


async def test_an_event_rings_and_many_ring_until_they_have_been_heard(bell: Doorbell, publisher: Publisher) -> None:
    assert await rings(bell, 30), "what happened before is to be looked for"
    await publisher.publish(EVENT)
    assert await rings(bell, 30)
    for _ in range(50):
        await publisher.publish(EVENT)
    count = 0
    while await rings(bell, 1):
        count += 1
    assert 1 <= count < 10, "the queue keeps one"


async def test_it_rings_and_listens_again_after_a_lost_connection(
    bell: Doorbell, publisher: Publisher, servers: Servers, amqp_url: str
) -> None:
    await rings(bell, 30)
    await publisher.publish(EVENT)
    vhost = quote(urlsplit(amqp_url).path[1:], safe="")

    async def closed() -> bool:
        """Whether the connection was there to be closed: the management API lists one late."""
        for one in await asyncio.to_thread(servers.call, "GET", f"vhosts/{vhost}/connections"):  # type: ignore[attr-defined]
            if "events" in str(one.get("client_properties", {}).get("connection_name")):
                await asyncio.to_thread(servers.call, "DELETE", f"connections/{quote(one['name'], safe='')}")
                return True
        return False

    await until(closed, "the connection is closed")
    await until(lambda: not bell.is_connected, "the program has noticed")
    await until(lambda: bell.is_connected, "the queue is bound again")
    assert await rings(bell, 30), "events may have been lost"
    await publisher.publish(EVENT)
    assert await rings(bell, 30)


async def test_its_queue_is_bound_while_it_is_wanted_and_a_little_longer(
    bell: Doorbell, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_taken() -> bool:
        return (await publisher.publish(EVENT)).is_taken

    await until(is_taken, "the queue is bound")
    bell.want(False)
    assert await is_taken()
    bell.want(True)
    monkeypatch.setattr(module, "LINGER", 0.05)
    bell.want(False)

    async def is_returned() -> bool:
        return not await is_taken()

    await until(is_returned, "the queue is bound no longer")
    await hear_all(bell)
    bell.want(True)
    assert await rings(bell, 30), "what happened meanwhile is to be looked for"
    assert await is_taken()


async def test_a_binding_that_is_refused_is_logged_with_the_reason_and_made_when_it_can_be(
    bell: Doorbell, publisher: Publisher, servers: Servers, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 0.05)
    bell.want(False)

    async def is_returned() -> bool:
        return not (await publisher.publish(EVENT)).is_taken

    await until(is_returned, "the queue is bound no longer")
    await hear_all(bell)
    vhost = quote(urlsplit(amqp_url).path[1:], safe="")
    await asyncio.to_thread(servers.call, "DELETE", f"exchanges/{vhost}/{Exchanges.EVENTS.value}")
    with capture_logs() as lines:
        bell.want(True)
        assert await rings(bell, 30)
    assert any("no exchange" in str(line.get("error")) for line in lines), lines
    assert (await publisher.publish(EVENT)).is_taken
