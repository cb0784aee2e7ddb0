"""Consume queues: pass each message to its handler, acknowledge it when the handler returns, dead-letter what it rejects.

Each message is handled in a task of its own, which goes on when the channel closes; the broker then delivers the message
again. While a server that the handler needs is down, the message is kept and tried again. It is not requeued, because a
quorum queue counts returns and in the end drops valid messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from orchestrator.activity import doing
from orchestrator.broker.arrivals import Arrival, Arrivals
from orchestrator.broker.bytes_in_hand import BytesInHand
from orchestrator.broker.connection import (
    BROKER_ERRORS,
    DECLARE_TIMEOUT,
    BrokerAddress,
    QueueDepth,
    close,
    connect,
    measure,
    raise_close_reason,
    raw_channel,
    restore,
    supervise,
)
from orchestrator.broker.dead_letters import dead_letter
from orchestrator.broker.gate import Gate
from orchestrator.broker.incoming import Delivery, read_delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.silent_queues import SilentQueues
from orchestrator.broker.subscription_watch import watch_subscriptions
from orchestrator.broker.topology import Topology
from orchestrator.errors import MessageError, PublishError, RefusedError
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.stopping import unless_stopping, wait_or_stop
from orchestrator.text import format_error, format_message
from orchestrator.watchdog import with_blockage

logger = structlog.get_logger(__name__)

CANCEL_TIMEOUT = 5.0
"""Seconds for cancelling consumers and handlers when the program stops."""

REQUEUE_AFTER = 5.0
"""Seconds after which a message is requeued that could not even be dead-lettered, so that it does not loop at full speed."""


class RequeueError(Exception):
    """Raised by a handler to requeue a message: the program is shutting down and has not begun the work."""


class DeclinedError(Exception):
    """Raised by a handler to leave a message to another program: it is requeued after ``pause`` seconds."""

    def __init__(self, pause: float) -> None:
        super().__init__(f"left to another program after {pause:g} s")
        self.pause = pause


Subscriptions = list[tuple[Channel, str]]
"""Each queue's channel, and the tag of the consumer on it."""

Handler = Callable[[Delivery], Awaitable[object]]
Refuse = Callable[[Delivery, MessageError], Awaitable[None]]


class Deliveries:
    """Consumes queues over a connection of its own, opened again whenever it breaks. Run :meth:`run` until :meth:`stop`.

    Args:
        handlers: queue name → handler.
        prefetch: how many messages of each queue may be in progress at once.
        max_bytes: of larger messages only so many bytes are kept in memory, and they are dead-lettered undecoded.
        few: queue name → how many of its messages may be in progress at once.
        lingering: queues of messages that do no harm when they come again, so that acknowledgements may gather.
        takes_cut: queues whose handlers accept messages cut to ``max_bytes``.
        refuse: queue name → function that first informs the sender of such a message.
        explain_transient: returns why a message must be kept and tried again after an error, such as a server that is down;
            ``None`` when it would fail again.
        publisher: publishes dead letters.
        gate: where messages wait while the database is unreachable; without one each retries by itself.
    """

    def __init__(
        self,
        address: BrokerAddress,
        topology: Topology,
        handlers: Mapping[str, Handler],
        *,
        prefetch: int,
        max_bytes: int,
        explain_transient: Callable[[BaseException], str | None],
        publisher: Publisher,
        refuse: Mapping[str, Refuse] | None = None,
        few: Mapping[str, int] | None = None,
        takes_cut: Collection[str] = (),
        lingering: Collection[str] = (),
        gate: Gate | None = None,
    ) -> None:
        self._address = address
        self._topology = topology
        self._handlers = dict(handlers)
        self._most = dict.fromkeys(handlers, prefetch) | dict(few or {})
        self._max_bytes = max_bytes
        self._explain_transient = explain_transient
        self._publisher = publisher
        self._refuse = dict(refuse or {})
        self._takes_cut = frozenset(takes_cut)
        self._lingering = frozenset(lingering)
        self._gate = gate
        self._in_hand: defaultdict[str, BytesInHand] = defaultdict(BytesInHand)
        self._stopping = asyncio.Event()
        self._finished = asyncio.Event()
        self._grace = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._received: Counter[str] = Counter()
        self._in_progress: Counter[str] = Counter()
        self._fit = asyncio.Event()
        self._fit.set()
        self._unfit = asyncio.Event()
        self._silent = SilentQueues(address, len(self._handlers))
        self._connection: AbstractConnection | None = None
        self._arrivals: list[Arrivals] = []
        self.consuming = asyncio.Event()
        """Set while the broker has this program as a consumer of every queue."""

    async def run(self) -> None:
        """Consume until :meth:`stop`."""
        try:
            await supervise("deliveries", self._consume, self._stopping)
        finally:
            if self._gate is not None:
                self._gate.give_up()
            self._finished.set()

    def suspend(self, reason: str) -> None:
        """Stop consuming: the broker delivers what is not acknowledged to others. Running handlers continue."""
        if self._fit.is_set():
            logger.warning("consuming nothing; the broker gives our messages to others", reason=reason)
            self._fit.clear()
            self._unfit.set()

    def resume(self) -> None:
        """Resume consuming."""
        self._unfit.clear()
        self._fit.set()

    async def stop(self, grace: float) -> None:
        """Accept no more messages, give running handlers ``grace`` seconds, requeue the rest, and wait for the end."""
        self._grace = grace
        self._stopping.set()
        await self._finished.wait()

    async def _consume(self, connected: Callable[[], None]) -> None:
        """Consume unless suspended; return when the broker is lost."""
        while not self._stopping.is_set():
            await unless_stopping(self._fit.wait(), self._stopping)
            if self._stopping.is_set():
                return
            await self._once(connected)
            if not self._unfit.is_set():
                return

    async def measure(self, queue: str) -> QueueDepth | None:
        """Ask the broker for the depth of a queue; ``None`` when there is no such queue, or no connection."""
        with contextlib.suppress(*BROKER_ERRORS):
            if self._connection is not None and not self._connection.is_closed:
                return await measure(self._connection, queue)
        return None

    async def _once(self, connected: Callable[[], None]) -> None:
        connection = await unless_stopping(connect(self._address, "consume"), self._stopping)
        if connection is None:
            return
        waiting: list[asyncio.Task[object]] = []
        try:
            cancelled = asyncio.Event()
            tags = await unless_stopping(self._subscribe(connection, cancelled), self._stopping)
            if tags is None:
                return
            self._connection = connection
            connected()
            watchdog = asyncio.create_task(
                watch_subscriptions(
                    self._served, cancelled, partial(measure, connection), self._received, self._takes_more
                )
            )
            waiting = [watchdog, *(asyncio.create_task(one.wait()) for one in (self._stopping, self._unfit))]
            await self._consume_all(connection, tags, cancelled, waiting)
            if watchdog.done():
                watchdog.result()
            if self._stopping.is_set():
                await self._drain(tags)
            elif not self._unfit.is_set():
                for channel, _ in tags:
                    raise_close_reason(channel)
        finally:
            self.consuming.clear()
            self._connection = None
            for task in waiting:
                task.cancel()
            while self._arrivals:
                self._arrivals.pop().flush()
            if not connection.is_closed:
                # Closing requeues whatever was not acknowledged.
                await close(connection)

    async def _subscribe(self, connection: AbstractConnection, cancelled: asyncio.Event) -> Subscriptions:
        """Start consuming every queue that answers; ``cancelled`` is set when the broker cancels a consumer."""
        await restore(connection, self._topology)
        return [await self._subscribe_one(connection, queue, cancelled) for queue in self._served()]

    async def _subscribe_one(
        self, connection: AbstractConnection, queue: str, cancelled: asyncio.Event
    ) -> tuple[Channel, str]:
        # Each queue has a channel of its own, so that the broker's work for one does not wait for another.
        async with asyncio.timeout(DECLARE_TIMEOUT):
            channel = await raw_channel(await connection.channel(publisher_confirms=False))
        channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
        await channel.basic_qos(prefetch_count=self._most[queue], timeout=DECLARE_TIMEOUT)
        # For people in the management UI; a tag belongs to its channel, so all may be equal.
        tag = self._address.name
        self._receive_from(queue, channel)
        with self._silent.noted(queue):
            await channel.basic_consume(queue, _receive_nothing, consumer_tag=tag, timeout=DECLARE_TIMEOUT)
        return channel, tag

    async def _consume_all(
        self,
        connection: AbstractConnection,
        tags: Subscriptions,
        cancelled: asyncio.Event,
        ends: Collection[asyncio.Task[object]],
    ) -> None:
        """Wait until one of these tasks or a channel ends; meanwhile add queues that answer again."""
        while True:
            if not self._silent:
                self.consuming.set()
            logger.info("consuming", queues=self._served())
            answering = asyncio.create_task(self._silent.wait_for_one(self._stopping))
            try:
                closing = [channel.closing for channel, _ in tags]
                done, _ = await asyncio.wait([*closing, *ends, answering], return_when=asyncio.FIRST_COMPLETED)
            finally:
                answering.cancel()
            queue = answering.result() if done == {answering} else None
            if queue is None:
                return
            tags.append(await self._subscribe_one(connection, queue, cancelled))

    async def _drain(self, tags: Subscriptions) -> None:
        """Wait for running handlers while the channels are still open, so that their messages can be acknowledged."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._grace

        async def cancel(channel: Channel, tag: str) -> None:
            with contextlib.suppress(*BROKER_ERRORS):
                await channel.basic_cancel(tag, timeout=min(self._grace, CANCEL_TIMEOUT))

        await asyncio.gather(*(cancel(*one) for one in tags))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, ends_at - loop.time()))
        if left := list(self._tasks):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=CANCEL_TIMEOUT)

    def _served(self) -> list[str]:
        return [queue for queue in sorted(self._handlers) if queue not in self._silent]

    def _takes_more(self, queue: str) -> bool:
        return self._in_progress[queue] < self._most[queue]

    def _receive_from(self, queue: str, channel: Channel) -> None:
        loop = asyncio.get_running_loop()

        def receive(arrival: Arrival) -> None:
            if self._stopping.is_set():
                return
            self._received[queue] += 1
            self._in_progress[queue] += 1
            task = loop.create_task(self._handle(queue, arrivals, arrival))
            self._tasks.add(task)
            task.add_done_callback(partial(self._end, queue))

        # Of what is in progress for the broker, which must not wait for acknowledgements with further messages.
        most = self._most[queue] // 4 if queue in self._lingering else 1
        arrivals = Arrivals(channel, self._max_bytes, receive, most=most)
        self._arrivals.append(arrivals)

    def _end(self, queue: str, task: asyncio.Task[None]) -> None:
        self._in_progress[queue] -= 1
        self._tasks.discard(task)

    async def _handle(self, queue: str, channel: Arrivals, arrival: Arrival) -> None:
        try:
            delivery = read_delivery(queue, arrival)
            try:
                async with self._in_hand[queue].hold(len(delivery.body)):
                    if channel.is_closed:
                        return  # it has not begun, and comes again
                    with doing(f"a message of {queue}", **delivery.trace):
                        await self._patiently(channel, self._find_handler(delivery), delivery)
            except MessageError as error:
                reason = str(error) if delivery.unreadable is None else f"{error} ({delivery.unreadable})"
                letter = dead_letter(delivery, reason)
                await self._patiently(channel, lambda d: self._dead_letter(d, letter, reason), delivery)
            channel.acknowledge(arrival.tag)
        except RequeueError:
            return
        except DeclinedError as declined:
            await self._requeue(channel, arrival.tag, declined.pause)
        except BROKER_ERRORS as error:
            # The channel is closed: the broker delivers the message again, which every handler tolerates.
            logger.info(with_blockage("message not acknowledged"), queue=queue, error=format_message(error))
        except Exception:
            # A bug in dead-lettering. Unacknowledged, the message would stay here until the program ends.
            logger.exception("message requeued", queue=queue)
            await self._requeue(channel, arrival.tag, REQUEUE_AFTER)

    async def _requeue(self, channel: Arrivals, tag: int, pause: float) -> None:
        await wait_or_stop(pause, self._stopping)
        channel.requeue(tag)

    def _find_handler(self, delivery: Delivery) -> Handler:
        is_taken = delivery.whole_size is None or delivery.queue in self._takes_cut
        return self._handlers[delivery.queue] if is_taken else self._refuse_size

    async def _refuse_size(self, delivery: Delivery) -> None:
        most = f"at most {self._max_bytes} are read (ORCHESTRATOR_MAX_MESSAGE_BYTES)"
        error = MessageError(f"the message has {delivery.whole_size} bytes; {most}")
        if delivery.queue in self._refuse:
            await self._refuse[delivery.queue](delivery, error)
        raise error

    async def _patiently(self, channel: Arrivals, handler: Handler, delivery: Delivery) -> None:
        """Call a handler, repeatedly while a server that it needs is down; give up when the channel has been closed."""
        tries = 0
        while True:
            if self._gate is not None and not self._gate.is_open:
                await self._pass_gate(self._gate, channel)
            try:
                await handler(delivery)
            except (MessageError, RequeueError, DeclinedError):
                raise
            except Exception as error:
                why = "a server is away" if isinstance(error, PublishError) else self._explain_transient(error)
                if why is None:
                    # A bug in the engine. The message must neither be delivered for ever nor be lost.
                    logger.exception("message could not be processed", queue=delivery.queue)
                    raise MessageError(f"internal error: {format_error(error)}") from error
                if self._gate is not None and not isinstance(error, PublishError) and await self._gate.shut(error):
                    continue
                tries += 1
                event = with_blockage(f"{why}; message kept")
                logger.warning(event, queue=delivery.queue, error=format_message(error), tries=tries)
                if await wait_or_stop(backoff(SERVER_AWAY, tries), self._stopping) or channel.is_closed:
                    raise RequeueError from error
            else:
                return

    async def _pass_gate(self, gate: Gate, channel: Arrivals) -> None:
        """Wait at the gate; give up when the channel has been closed, because the message then comes again.

        Raises:
            RequeueError: it has been closed, or the program stops.
        """
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await gate.wait(channel.closing, stopping)
        finally:
            stopping.cancel()
        if self._stopping.is_set() or channel.is_closed:
            raise RequeueError

    async def _dead_letter(self, delivery: Delivery, letter: Outgoing, reason: str) -> None:
        logger.warning(
            "dead letter", queue=delivery.queue, reason=reason, message_id=delivery.message_id, **delivery.trace
        )
        try:
            await self._publisher.publish(letter)
        except RefusedError as error:
            # An operator who limits the queue prefers losing letters to stopping. This line is all that remains of it.
            logger.error("dead letter lost", queue=delivery.queue, reason=reason, error=str(error), **delivery.trace)  # noqa: TRY400


async def _receive_nothing(_: DeliveredMessage) -> None:
    """Do nothing: the client library needs a callback, but :class:`~orchestrator.broker.arrivals.Arrivals` gets the messages."""
