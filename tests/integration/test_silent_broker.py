"""Connections to RabbitMQ that go silent: whoever waits gets an error soon, and what is alive is let alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from aio_pika.abc import AbstractConnection
from structlog.testing import capture_logs

from orchestrator.broker import silence
from orchestrator.broker.connection import BROKER_ERRORS, BrokerAddress, close, connect, raw_channel
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Topology
from orchestrator.errors import PublishError
from tests.acceptance.proxy import Proxy, proxied

SILENT = "RabbitMQ is silent; connection thrown away"
PATIENCE = 60.0
"""Seconds until a wait is taken to be endless."""


@pytest.fixture
def proxy_and_url(amqp_url: str) -> Iterator[tuple[Proxy, str]]:
    """Provide a proxy before the broker, and the URL through it."""
    with proxied(amqp_url) as found:
        yield found


@pytest.fixture
def proxy(proxy_and_url: tuple[Proxy, str]) -> Proxy:
    """Provide the proxy before the broker."""
    return proxy_and_url[0]


@pytest.fixture
def address(proxy_and_url: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch) -> BrokerAddress:
    """Provide the address through the proxy; its silence is soon noticed."""
    monkeypatch.setattr(silence, "LEAST_HEARTBEAT", 1)
    return BrokerAddress(proxy_and_url[1], "tests", 5, silent_after=3)


@pytest.fixture
async def connection(address: BrokerAddress) -> AsyncIterator[AbstractConnection]:
    """Provide a connection through the proxy."""
    opened = await connect(address, "silence")
    yield opened
    await close(opened)


async def test_a_request_on_a_silent_connection_fails_soon_and_is_no_cancellation(
    connection: AbstractConnection, proxy: Proxy
) -> None:
    channel = await raw_channel(await connection.channel())
    proxy.swallow()
    with capture_logs() as lines, pytest.raises(BROKER_ERRORS):
        async with asyncio.timeout(PATIENCE):
            await channel.queue_declare("silence", exclusive=True)
    (line,) = [one for one in lines if one["event"] == SILENT]
    assert line["log_level"] == "warning"
    assert line["server"] == f"127.0.0.1:{proxy.port}"
    assert line["seconds"] > 3


async def test_a_connection_without_traffic_lives_by_its_heartbeats(connection: AbstractConnection) -> None:
    """For longer than each end takes to notice that the other is gone."""
    channel = await raw_channel(await connection.channel())
    done, _ = await asyncio.wait({channel.closing}, timeout=6)
    assert not done


async def test_the_url_may_name_another_heartbeat(address: BrokerAddress) -> None:
    named = BrokerAddress(f"{address.url}?heartbeat=77", "tests", 5, silent_after=3)
    for one, seconds in ((address, 1), (named, 77)):
        opened = await connect(one, "heartbeat")
        assert opened.transport is not None
        assert getattr(opened.transport.connection, "heartbeat_timeout", None) == seconds
        await close(opened)


async def test_publishing_fails_within_its_time_and_works_again_with_the_network(
    address: BrokerAddress, proxy: Proxy
) -> None:
    publisher = Publisher(address, Topology.of("classic"), 2)
    await publisher.check()
    running = asyncio.create_task(publisher.run())
    message = Outgoing(Exchanges.EVENTS.value, "process.started", "process.started", b"{}", mandatory=False)
    async with asyncio.timeout(PATIENCE):
        await publisher.publish(message)
        proxy.swallow()
        with pytest.raises(PublishError):
            await publisher.publish(message)
        proxy.pass_on()
        while True:
            try:
                await publisher.publish(message)
            except PublishError:
                continue
            break
        # It is told to stop while it is silent.
        proxy.swallow()
        await publisher.stop()
        await running
