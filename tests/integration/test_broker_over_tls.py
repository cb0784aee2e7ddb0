"""The broker over TLS: messages go and come as they do without."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from orchestrator.broker.connection import connect
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import RESULT_KEY, Exchanges, Queues
from orchestrator.errors import ServerUnavailableError
from tests.integration.test_broker import TOPOLOGY, address, consuming
from tests.integration.test_database_over_tls import make_certificate
from tests.integration.waiting import until

MANY = 50
RESULT = Outgoing(Exchanges.RESULTS, RESULT_KEY, "step.result", b"{}")


@asynccontextmanager
async def behind_tls(amqp_url: str, certificate: Path) -> AsyncIterator[URL]:
    """Serve TLS before a broker that has none; provide the URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    url = URL(amqp_url)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(url.host, url.port)
        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        yield url.with_scheme("amqps").with_host("127.0.0.1").with_port(port)
    finally:
        server.close()


async def test_messages_are_published_and_delivered_over_tls(amqp_url: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "broker")
    got: list[bytes] = []

    async def take(delivery: Delivery) -> None:
        got.append(delivery.body)

    async with behind_tls(amqp_url, certificate) as url:
        trusting = str(url.update_query(cafile=str(certificate)))
        publisher = Publisher(address(trusting), TOPOLOGY, 60)
        await publisher.check()
        await publisher.open()
        async with consuming(trusting, publisher, Queues.RESULTS.value, take, prefetch=10):
            many = (replace(RESULT, body=str(number).encode()) for number in range(MANY))
            await asyncio.gather(*map(publisher.publish, many))
            await until(lambda: len(got) >= MANY, "all have come")
        assert {int(one) for one in got} == set(range(MANY))
        await publisher.close()


async def test_a_broker_whose_certificate_is_not_trusted_is_refused(amqp_url: str, tmp_path: Path) -> None:
    async with behind_tls(amqp_url, make_certificate(tmp_path, "broker")) as url:
        with pytest.raises(ServerUnavailableError, match="certificate verify failed"):
            await connect(address(str(url)), "test")
