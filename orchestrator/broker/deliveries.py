"""The one consume loop: takes messages from queues and hands them to handlers.

The client library cancels its delivery callbacks when a channel dies, so a callback here only hands over to a task of our
own; work that has begun goes on, and its message is simply delivered again. A message is acknowledged when its handler
has returned. A message that a handler cannot understand goes to the dead-letter exchange with the reason in words. While
a server that the handler needs is away, the message is kept and tried again; it is never put back, because a quorum queue
counts that and in the end drops valid messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from orchestrator.broker.connection import (
    BROKER_ERRORS,
    BrokerAddress,
    QueueDepth,
    connect,
    declare,
    measure,
    supervise,
    underlay,
)
from orchestrator.broker.properties import unreadable
from orchestrator.broker.publisher import Outgoing, Publisher
from orchestrator.broker.topology import Exchanges, Topology
from orchestrator.errors import MessageError, PublishError
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.stopping import wait_or_stop
from orchestrator.text import class_and_message, storable

logger = structlog.get_logger(__name__)

WATCHDOG_INTERVAL = 15.0
"""Seconds between two looks whether the broker still knows us as consumers of our queues."""

RETURN_AFTER = 5.0
"""Seconds until a message goes back to its queue with which even its burial has failed: it must not go round at full speed."""

MAX_REASON = 1000
"""Characters of a dead letter's reason, and of a sender's header: together they have one frame, or the broker hangs up."""


class NotTakenError(Exception):
    """A handler gives a message back: it is shutting down and has not begun."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a handler sees it.

    Args:
        unreadable: which of its properties could not be read, in words; these are ``None``.
    """

    queue: str
    body: bytes
    type: str | None
    routing_key: str
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    redelivered: bool
    unreadable: str | None = None


Handler = Callable[[Delivery], Awaitable[None]]
Refuse = Callable[[Delivery, MessageError], Awaitable[None]]


class Deliveries:
    """Consumes queues over a connection of its own, made again whenever it breaks. Run :meth:`run` until :meth:`stop`.

    Args:
        handlers: queue name → handler.
        prefetch: how many messages of each queue may be under way at once.
        max_bytes: larger messages go to the dead letters unread.
        refuse: queue name → who tells the sender of such a message first.
        is_transient: whether an error means that a server is away and the message must be kept.
        publisher: publishes dead letters.
    """

    def __init__(
        self,
        address: BrokerAddress,
        topology: Topology,
        handlers: Mapping[str, Handler],
        *,
        prefetch: int,
        max_bytes: int,
        is_transient: Callable[[BaseException], bool],
        publisher: Publisher,
        refuse: Mapping[str, Refuse] | None = None,
    ) -> None:
        self._address = address
        self._topology = topology
        self._handlers = dict(handlers)
        self._prefetch = prefetch
        self._max_bytes = max_bytes
        self._is_transient = is_transient
        self._publisher = publisher
        self._refuse = dict(refuse or {})
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._grace = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._received: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self.consuming = asyncio.Event()
        """Set while the broker has us as a consumer of every queue."""

    async def run(self) -> None:
        """Consume until :meth:`stop`."""
        try:
            await supervise("deliveries", self._once, self._stopping)
        finally:
            self._finished.set()

    async def stop(self, grace: float) -> None:
        """Take nothing more, let what has begun finish within ``grace`` seconds, give the rest back; wait for the end."""
        self._grace = grace
        self._stopping.set()
        await self._finished.wait()

    async def _once(self) -> None:
        connection = await connect(self._address, "consume")
        waiting: list[asyncio.Task[object]] = []
        try:
            await declare(connection, self._topology)
            channel = await underlay(await connection.channel(publisher_confirms=False))
            await channel.basic_qos(prefetch_count=self._prefetch)
            cancelled = asyncio.Event()
            channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
            tags = []
            for queue in self._handlers:
                answer = await channel.basic_consume(queue, self._receiver(queue, channel))
                tags.append(answer.consumer_tag or "")
            self.consuming.set()
            logger.info("consuming", queues=sorted(self._handlers))
            watchdog = asyncio.create_task(self._watch(cancelled, lambda queue: measure(connection, queue)))
            waiting = [watchdog, asyncio.create_task(self._stopping.wait())]
            await asyncio.wait([channel.closing, *waiting], return_when=asyncio.FIRST_COMPLETED)
            if watchdog.done():
                watchdog.result()
            if self._stopping.is_set():
                await self._drain(channel, tags)
        finally:
            self.consuming.clear()
            for task in waiting:
                task.cancel()
            if not connection.is_closed:
                # Closing gives back, at once, whatever was not acknowledged.
                await connection.close()

    async def _drain(self, channel: Channel, tags: list[str]) -> None:
        """While the channel still lives, so that what finishes can be acknowledged."""
        for tag in tags:
            with contextlib.suppress(*BROKER_ERRORS):
                await channel.basic_cancel(tag, timeout=self._grace)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._grace)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _watch(self, cancelled: asyncio.Event, ask: Callable[[str], Awaitable[QueueDepth | None]]) -> None:
        """Return when the broker no longer serves us: it cancelled us, or a queue is gone, has no readers or starves us.

        When a quorum queue is deleted and made again at once, the broker subscribes us to the new one by itself, without a
        word, and then delivers nothing.
        """
        before: Counter[str] = Counter()
        while not cancelled.is_set():
            try:
                async with asyncio.timeout(WATCHDOG_INTERVAL):
                    await cancelled.wait()
            except TimeoutError:
                for queue in self._handlers:
                    depth = await ask(queue)
                    if depth is None or depth.consumers == 0:
                        logger.warning("the broker has no consumer for our queue", queue=queue)
                        return
                    idle = self._received[queue] == before[queue] and self._under_way[queue] < self._prefetch
                    if depth.ready and idle:
                        logger.warning(
                            "the broker delivers nothing though messages wait", queue=queue, ready=depth.ready
                        )
                        return
                before = self._received.copy()

    def _receiver(self, queue: str, channel: Channel) -> Callable[[DeliveredMessage], Coroutine[Any, Any, None]]:
        async def receive(message: DeliveredMessage) -> None:
            if self._stopping.is_set():
                return
            self._received[queue] += 1
            self._under_way[queue] += 1
            task = asyncio.get_running_loop().create_task(self._handle(queue, channel, message))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._end(queue, done))

        return receive

    def _end(self, queue: str, task: asyncio.Task[None]) -> None:
        self._under_way[queue] -= 1
        self._tasks.discard(task)

    async def _handle(self, queue: str, channel: Channel, message: DeliveredMessage) -> None:
        properties = message.header.properties
        delivery = Delivery(
            queue=queue,
            body=message.body,
            type=properties.message_type,
            routing_key=message.routing_key or "",
            message_id=properties.message_id,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            redelivered=bool(message.redelivered),
            unreadable=unreadable(properties),
        )
        assert message.delivery_tag is not None  # noqa: S101 - the broker always gives one
        try:
            try:
                await self._patiently(channel, self._take, delivery)
            except MessageError as error:
                reason = str(error) if delivery.unreadable is None else f"{error} ({delivery.unreadable})"
                await self._patiently(channel, lambda d: self._bury(d, properties, reason), delivery)
            await channel.basic_ack(message.delivery_tag, wait=False)
        except NotTakenError:
            return
        except BROKER_ERRORS as error:
            # The channel died: the broker delivers the message again, and every handler bears that.
            logger.info("message not acknowledged", queue=queue, error=str(error) or type(error).__name__)
        except Exception:
            # A defect of ours in the burial itself. Unacknowledged, the message would be nobody's until we end.
            logger.exception("message given back", queue=queue)
            await wait_or_stop(RETURN_AFTER, self._stopping)
            with contextlib.suppress(*BROKER_ERRORS):
                await channel.basic_nack(message.delivery_tag, requeue=True, wait=False)

    async def _take(self, delivery: Delivery) -> None:
        if len(delivery.body) <= self._max_bytes:
            await self._handlers[delivery.queue](delivery)
            return
        error = MessageError(
            f"the message has {len(delivery.body)} bytes; at most {self._max_bytes} are read (ORCHESTRATOR_MAX_MESSAGE_BYTES)"
        )
        if delivery.queue in self._refuse:
            await self._refuse[delivery.queue](delivery, error)
        raise error

    async def _patiently(self, channel: Channel, handler: Handler, delivery: Delivery) -> None:
        """Call a handler, again and again while a server that it needs is away; give up when our channel is dead anyway."""
        tries = 0
        while True:
            try:
                await handler(delivery)
            except (MessageError, NotTakenError):
                raise
            except Exception as error:
                if not (isinstance(error, PublishError) or self._is_transient(error)):
                    # A defect of ours. The message must not come back for ever, and must not be lost.
                    logger.exception("message could not be processed", queue=delivery.queue)
                    raise MessageError(f"internal error: {class_and_message(error)}") from error
                tries += 1
                words = str(error) or type(error).__name__
                logger.warning("a server is away, message kept", queue=delivery.queue, error=words, tries=tries)
                if await wait_or_stop(backoff(SERVER_AWAY, tries), self._stopping) or channel.is_closed:
                    raise NotTakenError from error
            else:
                return

    async def _bury(self, delivery: Delivery, properties: spec.Basic.Properties, reason: str) -> None:
        known = {
            name: value[:MAX_REASON]
            for name in ("workflow", "step")
            if isinstance(value := (properties.headers or {}).get(name), str)
        }
        logger.warning("dead letter", queue=delivery.queue, reason=reason, message_id=delivery.message_id, **known)
        headers = {
            "x-reason": storable(reason)[:MAX_REASON],
            "x-queue": delivery.queue,
            "x-routing-key": delivery.routing_key,
            **known,
        }
        await self._publisher.publish(
            Outgoing(
                exchange=Exchanges.DEAD,
                routing_key="",
                type=properties.message_type or "",
                body=delivery.body,
                # A callback's correlation id is its token, which operators who read this queue must not see.
                correlation_id=None if delivery.queue == Exchanges.CALLBACKS else delivery.correlation_id,
                headers=headers,
            )
        )
