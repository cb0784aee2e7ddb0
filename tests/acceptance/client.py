"""Another service, as the engine sees it: publishes commands and callbacks, reads replies, events and dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AMQPError, DeliveryError

from tests.acceptance.waiting import until
from tests.background import Background

COMMANDS, CALLBACKS, EVENTS, DEAD = (
    "orchestrator.commands",
    "orchestrator.callbacks",
    "orchestrator.events",
    "orchestrator.dead",
)
BROKER_AWAY = (AMQPError, OSError, TimeoutError, *CONNECTION_EXCEPTIONS)


@dataclass(frozen=True)
class Received:
    """A message that came from the engine."""

    key: str
    type: str | None
    correlation_id: str | None
    headers: dict[str, Any]
    raw: bytes
    content_type: str | None = None
    message_id: str | None = None
    delivery_mode: int | None = None

    @property
    def body(self) -> Any:
        """The body as JSON."""
        return json.loads(self.raw)


def received(message: AbstractIncomingMessage) -> Received:
    """Return what the tests look at."""
    return Received(
        key=message.routing_key or "",
        type=message.type,
        correlation_id=message.correlation_id,
        headers=dict(message.headers),
        raw=message.body,
        content_type=message.content_type,
        message_id=message.message_id,
        delivery_mode=int(message.delivery_mode or 0),
    )


@dataclass
class Client:
    """A connection of another service, made again when it breaks."""

    background: Background
    url: str
    events: list[Received] = field(default_factory=list)
    dead: list[Received] = field(default_factory=list)
    _replies: dict[str, Received] = field(default_factory=dict)
    _connection: AbstractConnection | None = None
    _channel: AbstractChannel | None = None
    _reply_queue: str = ""
    _listening: bool = False

    def listen(self) -> None:
        """Collect all events from now on. Dead letters are fetched when a test asks for them."""
        self._listening = True
        self.background.run(self._open())

    def close(self) -> None:
        """Close the connection."""
        self.background.run(self._close())

    def send(
        self,
        exchange: str,
        key: str,
        body: object,
        *,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        wants_reply: bool = False,
        kind: str | None = None,
        seconds: float = 60.0,
        headers: dict[str, Any] | None = None,
    ) -> None:
        """Publish with a confirm, again and again while the broker is away, as a careful service does."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = aio_pika.Message(
            raw,
            content_type="application/json",
            message_id=message_id,
            correlation_id=correlation_id,
            reply_to=reply_to,
            type=kind,
            headers=headers,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )

        def sent() -> bool:
            try:
                self.background.run(self._publish(exchange, key, message, wants_reply), 20)
            except BROKER_AWAY as error:
                if isinstance(error, DeliveryError):
                    return False  # unroutable: the queue is not there yet
                self.background.run(self._close())
                return False
            return True

        until(sent, f"the broker takes {key} to {exchange}", seconds, every=0.2)

    def ask(
        self, key: str, body: object, *, message_id: str | None = None, exchange: str = COMMANDS, seconds: float = 60.0
    ) -> Received:
        """Publish a command and wait for the engine's answer to it."""
        number = uuid4().hex
        self.send(exchange, key, body, message_id=message_id, correlation_id=number, wants_reply=True)
        until(lambda: number in self._replies, f"an answer to {key} {str(body)[:200]}", seconds)
        return self._replies[number]

    def dead_letters(self) -> list[Received]:
        """All dead letters so far. They are taken out of the queue, and kept here."""
        self.background.run(self._fetch_dead())
        return self.dead

    def events_of(self, process_id: object) -> list[Received]:
        """Return the events of one process, in the order in which they came."""
        return [event for event in self.events if event.correlation_id == str(process_id)]

    async def _publish(self, exchange: str, key: str, message: aio_pika.Message, wants_reply: bool) -> None:
        channel = await self._open()
        if wants_reply:
            message.reply_to = self._reply_queue  # of this connection
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await target.publish(message, key, mandatory=True, timeout=10)

    async def _open(self) -> AbstractChannel:
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        await self._close()
        self._connection = await aio_pika.connect(self.url, timeout=10)
        self._channel = channel = await self._connection.channel(on_return_raises=True)
        replies = await channel.declare_queue(exclusive=True, auto_delete=True)
        self._reply_queue = replies.name
        await replies.consume(self._take_reply, no_ack=True)
        if self._listening:
            queue = await channel.declare_queue(exclusive=True, auto_delete=True)
            exchange = await channel.declare_exchange(EVENTS, "topic", durable=True)
            await queue.bind(exchange, "#")
            await queue.consume(self._take_event, no_ack=True)
        return channel

    async def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and not connection.is_closed:
            with contextlib.suppress(*BROKER_AWAY):
                await asyncio.wait_for(connection.close(), 5)

    async def _take_reply(self, message: AbstractIncomingMessage) -> None:
        self._replies[message.correlation_id or ""] = received(message)

    async def _take_event(self, message: AbstractIncomingMessage) -> None:
        self.events.append(received(message))

    async def _fetch_dead(self) -> None:
        channel = await self._open()
        queue = await channel.get_queue(DEAD, ensure=False)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            self.dead.append(received(message))
