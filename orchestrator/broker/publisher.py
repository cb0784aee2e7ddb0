"""Publish with confirms: when :meth:`Publisher.publish` returns, the broker has the message on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from secrets import token_hex
from weakref import WeakValueDictionary

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPChannelError, ChannelInvalidStateError, ChannelPreconditionFailed, DeliveryError

from orchestrator.broker.connection import (
    BROKER_ERRORS,
    DECLARE_TIMEOUT,
    BrokerAddress,
    close,
    connect,
    declare,
    declare_queue,
    one_channel,
    raise_close_reason,
    raw_channel,
    restore,
    supervise,
)
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.targets import Targets
from orchestrator.broker.topology import Exchanges, Queue, Topology, step_queue
from orchestrator.broker.window import Window
from orchestrator.errors import ConfigurationError, PublishError, RefusedError, UnroutableError
from orchestrator.stopping import unless_stopping, wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

ALONE_AT_ONCE = 8
"""The most messages published at once over channels of their own."""

LARGE = 64 * 1024
"""Bytes of a message that gets a channel of its own, because the broker closes the channel for one that is larger than its
``max_message_size``. No broker has a limit below that."""

_FULL = "max-length with overflow reject-publish"


@dataclass(slots=True)
class Answer:
    """The broker's answer about a message.

    Args:
        is_taken: whether a queue was bound for it, or it was not mandatory.
        place: its number among the messages of this publisher, in the order in which the broker processed them; ``None``
            when that is unknown, because it was sent over a channel of its own.
    """

    is_taken: bool
    place: int | None


class Publisher:
    """One connection for publishing, opened again whenever it breaks. Run :meth:`run` beside its users.

    Publishing has a connection of its own because a broker in alarm stops reading from publishers, and with them from
    everything else on the same connection.
    """

    def __init__(self, address: BrokerAddress, topology: Topology, publish_timeout: float) -> None:
        self._address = address
        self._topology = topology
        self._timeout = publish_timeout
        self._connection: AbstractConnection | None = None
        self._window: Window | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._silent = asyncio.Event()
        self._probe: asyncio.Task[None] | None = None
        self._targets = Targets()
        self._renewal: asyncio.Task[None] | None = None
        # Unique among the messages of all programs.
        self._series, self._count = token_hex(12), count(16**7)
        self._few = asyncio.Semaphore(ALONE_AT_ONCE)
        self._same_id: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sent = 0

    @property
    def is_ready(self) -> bool:
        """Whether the publisher is connected."""
        return self._ready.is_set()

    @property
    def sent(self) -> int:
        """The place of the newest message; later messages have greater ones."""
        return self._sent

    async def check(self) -> None:
        """Connect and declare the topology once, so that a program which cannot publish refuses to start.

        Raises:
            ServerUnavailableError, ConfigurationError: see :func:`connect` and :func:`declare`.
        """
        connection = await connect(self._address, "publish")
        try:
            await declare(connection, self._topology)
        finally:
            await close(connection)

    async def run(self) -> None:
        """Keep the connection open until :meth:`stop`."""
        await supervise("publisher", self._once, self._stopping)

    async def open(self) -> None:
        """Connect once, for programs that publish a few messages and end.

        Raises:
            ServerUnavailableError, ConfigurationError: see :func:`connect` and :func:`restore`.
        """
        self._connection = await connect(self._address, "publish")
        try:
            await restore(self._connection, self._topology)
            self._window = await self._open_window(self._connection)
        except BaseException:
            await self.close()
            raise
        self._ready.set()

    async def close(self) -> None:
        """Close the connection."""
        self._ready.clear()
        self._window = None
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed:
            await close(connection)

    async def stop(self) -> None:
        """Make :meth:`run` close the connection and return."""
        self._stopping.set()

    async def publish(self, message: Outgoing) -> Answer:
        """Publish and wait for the broker's confirm, or for the return of an optional message that no queue takes.

        A target that has refused a message is not tried for a few seconds; meanwhile its messages are refused at once.

        Raises:
            UnroutableError, RefusedError: this target accepts no messages, because it has no queue, its queue is full, or this
                user may not publish to it. Other targets work.
            PublishError: no confirm in time. The broker may have the message all the same, so its reader must tolerate a
                duplicate.
        """
        refusal = self._targets.find_refusal(message)
        if refusal is not None:
            raise UnroutableError(refusal)
        try:
            if not self._ready.is_set():
                async with asyncio.timeout(self._timeout):
                    await self._ready.wait()
            window = self._window
            try:
                if window is None or self._targets or message.properties or len(message.body) >= LARGE:
                    answer = await self._send(message)
                else:
                    answer = await self._send_over(window, message, self._make_id())
            except UnroutableError as error:
                answer = await self._restore_and_send(message, error)
        except UnroutableError as error:
            if message.exchange:
                self._targets.refuse(message, str(error))
            raise
        except TimeoutError as error:
            if self._probe is None or self._probe.done():
                self._probe = asyncio.create_task(self._check_broker())
            raise PublishError(
                f"no confirm for {message.type} to '{message.exchange}' within {self._timeout} s"
            ) from error
        except DeliveryError as error:
            text = f"{_describe(message)} was refused by the broker: a queue that it goes to is full ({_FULL})"
            self._targets.isolate(message)
            self._targets.refuse(message, text, pauses=False)
            raise RefusedError(text) from error
        except BROKER_ERRORS as error:
            raise PublishError(
                f"{message.type} to '{message.exchange}' was not accepted by the broker: {format_message(error)}"
            ) from error
        else:
            if self._targets.accept(message):
                self._renew_soon()
            return answer

    async def _restore_and_send(self, message: Outgoing, refusal: UnroutableError) -> Answer:
        # A queue or an exchange was deleted, or an author's new step queue does not exist yet.
        if not message.exchange:
            raise refusal
        try:
            await self._restore(message)
        except ConfigurationError as error:
            raise UnroutableError(str(error)) from error
        return await self._send(message)

    def _make_id(self) -> str:
        return f"{self._series}{next(self._count):x}"

    async def _send(self, message: Outgoing) -> Answer:
        given = message.properties.get("message_id")
        if given is None:
            return await self._send_as(message, self._make_id())
        # The client library confuses two messages in flight with one id: it takes a returned one for confirmed.
        async with self._same_id.setdefault(given, asyncio.Lock()):
            return await self._send_as(message, given)

    async def _send_as(self, message: Outgoing, message_id: str) -> Answer:
        window = self._window
        if window is None:
            raise ConnectionError("not connected")
        if self._targets.is_isolated(message) or len(message.body) >= LARGE:
            return await self._send_alone(message, message_id)
        return await self._send_over(window, message, message_id)

    async def _send_over(self, window: Window, message: Outgoing, message_id: str) -> Answer:
        # Nothing else runs before the write, so places are in the order in which the broker processes the messages.
        self._sent += 1
        place = self._sent
        try:
            is_taken = await window.publish(message, message_id)
        except (AMQPChannelError, ChannelInvalidStateError):
            # The broker closes the channel for one message, and does not say for which of those in flight.
            if window.channel.connection.is_closed:
                raise
            return await self._send_alone(message, message_id)
        _require_taken(message, is_taken)
        # The broker may have processed messages on a newer channel before this one.
        return Answer(is_taken, place if window is self._window else None)

    async def _send_alone(self, message: Outgoing, message_id: str) -> Answer:
        """Publish a message over a channel of its own, so that no other fails if the broker closes the channel for it."""
        connection = self._connection
        if connection is None:
            raise ConnectionError("not connected")
        async with self._few, one_channel(connection, confirms=True) as channel:
            try:
                window = Window(await raw_channel(channel), self._timeout)
                is_taken = await window.publish(message, message_id)
            except ChannelPreconditionFailed as error:
                # The message is at fault, not its target.
                raise RefusedError(
                    f"{message.type} to '{message.exchange}' with {len(message.body)} bytes was refused by the broker:"
                    f" {format_message(error)}"
                ) from error
            except AMQPChannelError as error:
                self._targets.isolate(message)
                raise UnroutableError(
                    f"{_describe(message)} was refused by the broker: {format_message(error)}"
                ) from error
            _require_taken(message, is_taken)
            return Answer(is_taken, None)

    async def _restore(self, message: Outgoing) -> None:
        assert self._connection is not None  # noqa: S101 - _send has just used it
        if message.exchange == Exchanges.STEPS:
            queue = Queue(step_queue(message.routing_key), Exchanges.STEPS, (message.routing_key,), "consumers")
            await declare_queue(self._connection, queue, self._topology)
        else:
            await declare(self._connection, self._topology)

    async def _check_broker(self) -> None:
        """Abandon the connection if nothing answers on it, because the node is frozen or the network is cut.

        This is sooner than heartbeats would. A node that answers but does not confirm waits for other nodes, and another
        connection would not help; nor would it while all nodes block publishers (an alarm).
        """
        connection, window = self._connection, self._window
        if connection is None or window is None:
            return
        try:
            async with asyncio.timeout(self._timeout):
                await window.channel.connection.ready()
        except TimeoutError:
            return
        try:
            async with asyncio.timeout(self._timeout), one_channel(connection):
                pass
        except BROKER_ERRORS as error:
            if self._connection is connection:
                logger.warning("the broker does not answer; connecting again", error=format_message(error))
                self._silent.set()

    async def _once(self, connected: Callable[[], None]) -> None:
        self._silent.clear()
        waiting: list[asyncio.Task[bool]] = []
        try:
            await unless_stopping(self.open(), self._stopping)
            if self._window is None:
                return
            connected()
            waiting = [asyncio.create_task(one.wait()) for one in (self._stopping, self._silent)]
            while True:
                window, connection = self._window, self._connection
                assert window is not None and connection is not None  # noqa: PT018, S101 - open() has set them
                channel = window.channel
                # A channel ends with its connection, so this notices the end of either.
                await asyncio.wait([channel.closing, *waiting], return_when=asyncio.FIRST_COMPLETED)
                if any(one.done() for one in waiting):
                    return
                if channel.connection.is_closed:
                    raise_close_reason(channel)
                    return
                if window is not self._window:
                    continue
                # The broker refused a message by closing the channel. The connection goes on, with everything else on it.
                self._ready.clear()
                self._window = await self._open_window(connection)
                self._ready.set()
        finally:
            for one in waiting:
                one.cancel()
            await self.close()

    def _renew_soon(self) -> None:
        """Publish over another channel from now on, because the broker goes on refusing on one where it has refused.

        A quorum queue does so until the channel is closed, even when an operator has lifted its limit.
        """
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        connection, old = self._connection, self._window
        if connection is None or old is None:
            return
        with suppress(*BROKER_ERRORS):
            window = await self._open_window(connection)
            if self._window is old:
                self._window = window
                # By then messages in flight on the old channel have their confirms, or never get them.
                await wait_or_stop(self._timeout, self._stopping)
                async with asyncio.timeout(self._timeout):
                    await old.channel.close()

    async def _open_window(self, connection: AbstractConnection) -> Window:
        async with asyncio.timeout(DECLARE_TIMEOUT):
            return Window(await raw_channel(await connection.channel(publisher_confirms=True)), self._timeout)


def _require_taken(message: Outgoing, is_taken: bool) -> None:
    if not is_taken and not message.optional:
        raise UnroutableError(f"{message.type} to '{message.exchange}': no queue takes the key {message.routing_key!r}")


def _describe(message: Outgoing) -> str:
    return f"{message.type} to '{message.exchange}' with the key {message.routing_key!r}"
