"""The demo's two ends of AMQP: another service that starts workflows by bare messages, and a watcher of the engine's events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused

from .patience import Patience

REPLIES = "svc.crm.replies"


@dataclass(frozen=True, slots=True)
class Answer:
    """The engine's answer to a start."""

    type: str
    body: dict[str, Any]


class OtherService:
    """A CRM, for example: its account may send commands and has a queue for the answers. It imports nothing of the engine."""

    def __init__(self, commands: AbstractExchange, patience: Patience) -> None:
        self._commands, self._patience = commands, patience
        self._waiting: dict[str, asyncio.Future[Answer]] = {}

    async def start(self, workflow: str, *pages: dict[str, Any], message_id: str | None = None) -> Answer:
        """Start a workflow with the pages of its form, and wait for the answer.

        The same ``message_id`` again gives the same process.
        """
        question = uuid4().hex
        message = aio_pika.Message(
            json.dumps({"workflow": workflow, "inputs": pages, "user": "crm"}).encode(),
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message_id or uuid4().hex,
            correlation_id=question,
            reply_to=REPLIES,
        )
        self._waiting[question] = asyncio.get_running_loop().create_future()
        with self._patience.awaiting(f"the answer to the message that starts {workflow}"):
            await self._commands.publish(message, "workflow.start", mandatory=True)
            return await self._waiting[question]

    async def receive(self, message: AbstractIncomingMessage) -> None:
        """Hand an answer to whoever waits for it."""
        async with message.process():
            waiting = self._waiting[message.correlation_id or ""]
            if not waiting.done():
                waiting.set_result(Answer(message.type or "", json.loads(message.body)))


@asynccontextmanager
async def other_service(url: str, patience: Patience) -> AsyncIterator[OtherService]:
    """Connect as another service."""
    async with _channel(url, "demo: another service") as channel:
        service = OtherService(await channel.get_exchange("orchestrator.commands", ensure=False), patience)
        await (await channel.declare_queue(REPLIES, exclusive=True)).consume(service.receive)
        yield service


@asynccontextmanager
async def watching(url: str, see: Callable[[dict[str, Any]], Awaitable[None]]) -> AsyncIterator[None]:
    """Call ``see`` with every event of the engine."""

    async def receive(message: AbstractIncomingMessage) -> None:
        async with message.process():
            await see(json.loads(message.body))

    async with _channel(url, "demo: watches events") as channel:
        await channel.set_qos(prefetch_count=1)  # one after the other, in the order of the queue
        queue = await channel.declare_queue("demo.watch", exclusive=True)
        await queue.bind("orchestrator.events", "#")
        await queue.consume(receive)
        yield


async def read_dead_letters(url: str) -> list[str]:
    """Return the reasons of all dead letters. They are put back: an operator may want to see them."""
    reasons = []
    async with _channel(url, "demo: looks at dead letters") as channel:
        queue = await channel.declare_queue("orchestrator.dead", passive=True)
        while (message := await queue.get(fail=False)) is not None:
            reasons.append(str(message.headers.get("x-reason", "no reason")))
    return reasons


async def may_publish(url: str, exchange: str, key: str) -> bool:
    """Return whether the broker lets an account write to an exchange."""
    async with _channel(url, "demo: tries what it may not do") as channel:
        try:
            await (await channel.get_exchange(exchange, ensure=False)).publish(aio_pika.Message(b"{}"), key)
        except ChannelAccessRefused:
            return False
        return True


@asynccontextmanager
async def _channel(url: str, name: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url, client_properties={"connection_name": name}) as connection:
        yield await connection.channel(publisher_confirms=True, on_return_raises=True)
