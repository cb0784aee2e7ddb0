"""Make dead letters on real servers, and read what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from orchestrator.broker.deliveries import Deliveries, Handler
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Queues, Topology
from orchestrator.coordinator.dead_letters import LetterKeeper
from orchestrator.db.dead_letters import StoredLetter, Wanted, list_letters
from orchestrator.db.dead_letters import read_letter as read_stored
from orchestrator.db.session import Database, explain_transient
from orchestrator.errors import MessageError
from tests.integration.test_broker import address, letters, ready
from tests.integration.waiting import until

SENT = datetime(2026, 11, 26, 7, 30, tzinfo=UTC)
HEADERS: dict[str, Any] = {
    "tenant": "north",
    "tries": 3,
    "price": 1.5,
    "urgent": True,
    "nothing": None,
    "when": SENT,
    "list": [1, {"deep": "x"}],
    "x-reason": "a sender's own header of that name is overwritten",
}


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[Publisher]:
    """Provide an open publisher."""
    made = Publisher(address(url), Topology.of("quorum"), 5)
    await made.open()
    yield made
    await made.close()


async def fail(_: Delivery) -> None:
    """Refuse a message."""
    raise MessageError("it is nonsense")


@asynccontextmanager
async def reading(
    url: str,
    database: Database,
    publisher: Publisher,
    handlers: dict[str, Handler] | None = None,
    *,
    few: int = 5,
    max_bytes: int = 1_000_000,
) -> AsyncIterator[None]:
    """Handle messages, and keep what becomes a dead letter."""
    deliveries = Deliveries(
        address(url),
        Topology.of("quorum"),
        {Queues.LETTERS.value: LetterKeeper(database, publisher).take, **(handlers or {})},
        prefetch=10,
        max_bytes=max_bytes,
        takes_cut={Queues.LETTERS.value},
        explain_transient=explain_transient,
        publisher=publisher,
        few={Queues.LETTERS.value: few},
    )
    running = asyncio.create_task(deliveries.run())
    await asyncio.wait_for(deliveries.consuming.wait(), 60)
    try:
        yield
    finally:
        await deliveries.stop(5)
        await running


async def publish(url: str, exchange: str, key: str, body: bytes, **properties: Any) -> None:
    """Publish a message as another service does."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await target.publish(aio_pika.Message(body, **properties), key, mandatory=True)


async def kept(database: Database, count: int = 1) -> list[StoredLetter]:
    """Wait until so many open letters are kept; return them, the newest first."""

    async def found() -> bool:
        async with database.transaction() as session:
            return len(await list_letters(session, Wanted(), 1000)) == count

    await until(found, f"{count} letters are kept")
    async with database.transaction() as session:
        return [await read_stored(session, one.letter_id) for one in await list_letters(session, Wanted(), 1000)]


async def only(url: str, queue: str) -> AbstractIncomingMessage:
    """Wait for the only message of a queue and take it."""
    await until(lambda: _has(url, queue), f"{queue} has a message")
    (message,) = await letters(url, queue)
    return message


async def _has(url: str, queue: str) -> bool:
    return await ready(url, queue) == 1
