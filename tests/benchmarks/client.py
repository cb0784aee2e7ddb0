"""The other service: sends start commands over AMQP and hears of the ends, the same way for the floor and the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from tests.benchmarks.systems import BenchmarkError, Programs, System

READY_WITHIN = 300.0
STALLED_AFTER = 300.0
"""Seconds without a completion after which a run has failed."""


class Client:
    """Starts processes of one running system and counts their completion events."""

    def __init__(self, programs: Programs, channel: AbstractChannel, exchange: AbstractExchange) -> None:
        self._programs = programs
        self._system = programs.system
        self._channel = channel
        self._exchange = exchange
        self._completed = 0
        self._wanted = 0
        self._enough = asyncio.Event()

    async def many(self, count: int) -> float:
        """Start ``count`` processes at once; seconds from the first start command to the last completion."""
        self._expect(count)
        began = time.perf_counter()
        await asyncio.gather(*(self._start() for _ in range(count)))
        await self._wait()
        return time.perf_counter() - began

    async def start(self, count: int, system: System | None = None) -> None:
        """Start ``count`` processes at once, and wait for none.

        Args:
            system: another one, of the same programs.
        """
        await asyncio.gather(*(self._start(system) for _ in range(count)))

    async def one(self) -> float:
        """Seconds from a start command to its completion, with nothing else under way."""
        self._expect(1)
        began = time.perf_counter()
        # The confirm is not waited for first: the completion may well be on its way before it.
        start = asyncio.ensure_future(self._start())
        await self._wait()
        took = time.perf_counter() - began
        await start
        return took

    def _expect(self, count: int) -> None:
        self._completed, self._wanted = 0, count
        self._enough.clear()

    async def _start(self, system: System | None = None) -> None:
        await self._exchange.publish(
            aio_pika.Message(
                (system or self._system).body,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                content_type="application/json",
                message_id=uuid4().hex,
                type=self._system.key,
            ),
            routing_key=self._system.key,
        )

    async def _wait(self) -> None:
        before = -1
        while not self._enough.is_set():
            if before == self._completed:
                raise BenchmarkError(
                    f"{self._system.name}: {self._completed} of {self._wanted} completed, then none for {STALLED_AFTER} s"
                )
            before = self._completed
            try:
                async with asyncio.timeout(STALLED_AFTER):
                    await self._enough.wait()
            except TimeoutError:
                self._programs.check()

    async def heard(self, _: AbstractIncomingMessage) -> None:
        """Handle a completion event."""
        self._completed += 1
        if self._completed == self._wanted:
            self._enough.set()


@asynccontextmanager
async def client_of(programs: Programs, amqp_url: str) -> AsyncIterator[Client]:
    """Provide a client of a system, once all its programs read their queues."""
    system = programs.system
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        await _until_ready(connection, programs)
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(system.exchange) if system.exchange else channel.default_exchange
        client = Client(programs, channel, exchange)
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(system.events, system.completed)
        await queue.consume(client.heard, no_ack=True)
        yield client


async def _until_ready(connection: AbstractConnection, programs: Programs) -> None:
    ends = time.monotonic() + READY_WITHIN
    for name, reader in programs.system.queues.items():
        readers = sum(program.split()[0] == reader for program in programs.pids)
        while await _readers(connection, name) < readers:
            programs.check()
            if time.monotonic() > ends:
                raise BenchmarkError(f"{programs.system.name}: {name} has too few readers after {READY_WITHIN} s")
            await asyncio.sleep(0.1)


async def ready_messages(amqp_url: str, queue: str) -> int:
    """Return how many messages of a queue no program has taken."""
    async with await aio_pika.connect(amqp_url) as connection:
        declared = await (await connection.channel()).declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def _readers(connection: AbstractConnection, queue: str) -> int:
    channel = await connection.channel()
    try:
        declared = await channel.declare_queue(queue, passive=True)
    except ChannelNotFoundEntity:
        return 0
    else:
        return declared.declaration_result.consumer_count or 0
    finally:
        if not channel.is_closed:
            await channel.close()
