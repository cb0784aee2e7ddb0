"""Wake a reader when the log of processes has grown, by a queue of one message that is bound to all events.

The message's content is not read. The queue keeps the newest one (``max-length`` 1, ``drop-head``), and the next is delivered
once the reader waits again. So a slow program gets no more than it can take, and delays no one else. A message is lost with the
connection; therefore readers also poll from time to time.

The queue is bound only while a reader wants to be woken, because coordinators publish only events for which a queue is bound.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from uuid import uuid4

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from orchestrator.broker.connection import (
    BROKER_ERRORS,
    DECLARE_TIMEOUT,
    BrokerAddress,
    close,
    connect,
    raise_close_reason,
    raw_channel,
    restore,
    supervise,
)
from orchestrator.broker.topology import Exchanges, Topology, listener_queue

logger = structlog.get_logger(__name__)

LINGER = 30.0
"""Seconds for which the queue stays bound after the last reader has gone, because one that changes pages is soon back."""


class Doorbell:
    """Rings when events were published, while :meth:`want` has requested it.

    Run :meth:`run` until :meth:`stop`, and :meth:`wait` in a loop beside it.
    """

    def __init__(self, address: BrokerAddress, topology: Topology, program: str) -> None:
        self._address = address
        self._topology = topology
        self._program = program
        self._rung = asyncio.Event()
        self._stopping = asyncio.Event()
        self._wanted, self._unwanted = asyncio.Event(), asyncio.Event()
        self._unanswered: tuple[Channel, int] | None = None
        self.is_connected = False
        """Whether there is a queue, which is bound while it is wanted."""

    def want(self, wanted: bool) -> None:
        """Ring for events from now on, or stop. It rings once when the queue is bound."""
        (self._wanted if wanted else self._unwanted).set()
        (self._unwanted if wanted else self._wanted).clear()

    def ring(self) -> None:
        """Wake the reader."""
        self._rung.set()

    async def wait(self, patience: float) -> None:
        """Wait until it rings, at most ``patience`` seconds. Later events ring again."""
        if self._unanswered is not None:
            (channel, tag), self._unanswered = self._unanswered, None
            with contextlib.suppress(*BROKER_ERRORS):
                await channel.basic_ack(tag, wait=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._rung.wait()
        self._rung.clear()

    async def run(self) -> None:
        """Listen until :meth:`stop`."""
        await supervise("events", self._once, self._stopping)

    def stop(self) -> None:
        """Make :meth:`run` close the connection and return."""
        self._stopping.set()

    async def _once(self, connected: Callable[[], None]) -> None:
        connection = await connect(self._address, "events")
        waiting: list[asyncio.Task[bool]] = []
        binding: asyncio.Task[None] | None = None
        try:
            await restore(connection, self._topology)
            async with asyncio.timeout(DECLARE_TIMEOUT):
                channel = await raw_channel(await connection.channel(publisher_confirms=False))
                await channel.basic_qos(prefetch_count=1)
                name = listener_queue(f"{self._program}.{uuid4().hex[:8]}")
                await channel.queue_declare(
                    name,
                    exclusive=True,
                    auto_delete=True,
                    arguments={"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "drop-head"},
                )
                cancelled = asyncio.Event()
                channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
                await channel.basic_consume(
                    name, lambda message: self._receive(channel, message), consumer_tag=self._address.name
                )
            self.is_connected = True
            connected()
            logger.info("listening to events", queue=name)
            waiting = [asyncio.create_task(cancelled.wait()), asyncio.create_task(self._stopping.wait())]
            binding = asyncio.create_task(self._bind_while_wanted(channel, name))
            await asyncio.wait([channel.closing, binding, *waiting], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                raise_close_reason(channel)
            if binding.done():
                await binding  # says why it has ended
        finally:
            self.is_connected = False
            self._unanswered = None
            for one in waiting:
                one.cancel()
            if binding is not None:
                binding.cancel()
                await asyncio.gather(binding, return_exceptions=True)
            if not connection.is_closed:
                await close(connection)

    async def _bind_while_wanted(self, channel: Channel, queue: str) -> None:
        """Bind the queue while it is wanted, until the channel is closed."""
        while True:
            await self._wanted.wait()
            await channel.queue_bind(queue, Exchanges.EVENTS.value, "#", timeout=DECLARE_TIMEOUT)
            # Events may have happened while it was not bound.
            self.ring()
            while not self._unwanted.is_set():
                await self._unwanted.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        await self._wanted.wait()
            async with asyncio.timeout(DECLARE_TIMEOUT):
                await channel.queue_unbind(queue, Exchanges.EVENTS.value, "#")

    async def _receive(self, channel: Channel, message: DeliveredMessage) -> None:
        assert message.delivery_tag is not None  # noqa: S101 - the broker always gives one
        self._unanswered = (channel, message.delivery_tag)
        self.ring()
