"""Connect to RabbitMQ and declare the topology; translate the client library's errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AMQPError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
)
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused

from orchestrator.broker.incoming import tolerate_unreadable_properties
from orchestrator.broker.topology import EXCHANGES, Exchange, Queue, Topology
from orchestrator.diagnostics import comes_from
from orchestrator.errors import ConfigurationError, ServerUnavailableError
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.settings import Settings
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

BROKER_ERRORS = (AMQPError, OSError, TimeoutError, *CONNECTION_EXCEPTIONS)
"""The errors that the client library raises when the broker is down, restarting or refuses the connection."""

DECLARE_TIMEOUT = 10.0
"""Seconds for one declaration. A broker that has just started answers slowly; one in alarm does not answer."""

_CLIENT = {"aio_pika", "aiormq", "pamqp"}

STABLE_AFTER = 30.0
"""Seconds of connection after which the back-off starts again with a short pause."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where RabbitMQ is and who connects.

    Args:
        url: ``amqp://…``, with the password.
        name: what an operator sees in the management UI.
        connect_timeout: seconds.
    """

    url: str
    name: str
    connect_timeout: float

    @classmethod
    def of(cls, settings: Settings, name: str) -> BrokerAddress:
        """Return the address in the settings."""
        return cls(settings.amqp_url.get_secret_value(), name, settings.connect_timeout)

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.username or 'guest'}@{parts.hostname}:{parts.port or 5672}{parts.path}"


def is_broker_outage(error: BaseException) -> bool:
    """Return whether an error means that RabbitMQ is down or refuses us, not that the engine's or a user's code is wrong."""
    return isinstance(error, BROKER_ERRORS) and comes_from(error, "orchestrator.broker", _CLIENT)


async def connect(address: BrokerAddress, purpose: str) -> AbstractConnection:
    """Open a plain connection. Callers reconnect in a loop of their own, because they must open their channels again too.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer or refuses the connection; the text is one line.
    """
    tolerate_unreadable_properties()
    connection: AbstractConnection | None = None
    try:
        connection = aio_pika.Connection(
            make_url(address.url), client_properties={"connection_name": f"{address.name} ({purpose})"}
        )
        await connection.connect(timeout=address.connect_timeout)
    except (*BROKER_ERRORS, ValueError) as error:
        if connection is not None:
            # Otherwise the client library closes it when it is garbage-collected, in a task that nothing awaits.
            with contextlib.suppress(*BROKER_ERRORS):
                await connection.close()
        reason = format_message(error)
        if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in reason:
            # The broker closed the connection because of the virtual host; the client library drops its message.
            reason = "the virtual host does not exist, or this user may not use it"
        raise ServerUnavailableError(
            f"RabbitMQ at {address} cannot be used: {reason} (check ORCHESTRATOR_AMQP_URL and that it runs)"
        ) from error
    return connection


async def declare(connection: AbstractConnection, topology: Topology) -> None:
    """Declare every exchange, queue and binding. Idempotent.

    Raises:
        ConfigurationError: the broker has one of them with other properties, or this user may not declare it.
    """
    for exchange in EXCHANGES:
        await _declare_exchange(connection, exchange)
    for queue in topology.queues:
        await declare_queue(connection, queue, topology)


async def declare_queue(connection: AbstractConnection, queue: Queue, topology: Topology) -> None:
    """Declare one queue with its bindings."""

    async def create(channel: AbstractChannel) -> None:
        declared = await channel.declare_queue(
            queue.name, durable=True, arguments={**queue.arguments(topology.queue_type)}, timeout=DECLARE_TIMEOUT
        )
        for key in queue.keys:
            await declared.bind(queue.exchange.value, key, timeout=DECLARE_TIMEOUT)

    async def check(channel: AbstractChannel) -> None:
        await channel.declare_queue(queue.name, passive=True, timeout=DECLARE_TIMEOUT)

    await _create_or_check(connection, f"queue {queue.name!r}", create, check)


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages wait in a queue, and how many consumers read it."""

    name: str
    ready: int
    consumers: int


async def measure(connection: AbstractConnection, queue: str) -> QueueDepth | None:
    """Ask the broker for the depth of a queue; ``None`` when there is no such queue."""
    async with one_channel(connection) as channel:
        try:
            declared = await channel.declare_queue(queue, passive=True, timeout=DECLARE_TIMEOUT)
        except ChannelNotFoundEntity:
            return None
        result = declared.declaration_result
        return QueueDepth(queue, result.message_count or 0, result.consumer_count or 0)


@asynccontextmanager
async def one_channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    """Open a channel for a request that the broker may answer by closing the channel."""
    channel = await asyncio.wait_for(connection.channel(publisher_confirms=False), DECLARE_TIMEOUT)
    try:
        yield channel
    finally:
        if not channel.is_closed:
            await channel.close()


async def raw_channel(channel: AbstractChannel) -> Channel:
    """Return the client library's lower channel, which can publish and acknowledge without waiting for the socket."""
    lower = await channel.get_underlay_channel()
    assert isinstance(lower, Channel)  # noqa: S101 - the library has no other kind
    return lower


async def supervise(name: str, once: Callable[[], Awaitable[None]], stopping: asyncio.Event) -> None:
    """Run ``once`` repeatedly until ``stopping`` is set, with growing pauses while it fails.

    ``once`` returns or raises when its connection is lost. Many programs lose the broker at the same moment; the jitter of
    the pauses keeps them from reconnecting at the same moment.
    """
    failures = 0
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        began = loop.time()
        try:
            await once()
        except (ServerUnavailableError, ConfigurationError, *BROKER_ERRORS) as error:
            logger.warning("broker connection lost", loop=name, error=format_message(error))
        if loop.time() - began > STABLE_AFTER:
            failures = 0
        failures += 1
        await wait_or_stop(backoff(SERVER_AWAY, failures), stopping)


async def _declare_exchange(connection: AbstractConnection, exchange: Exchange) -> None:
    async def create(channel: AbstractChannel) -> None:
        await channel.declare_exchange(exchange.name.value, exchange.type, durable=True, timeout=DECLARE_TIMEOUT)

    async def check(channel: AbstractChannel) -> None:
        await channel.declare_exchange(
            exchange.name.value, exchange.type, durable=True, passive=True, timeout=DECLARE_TIMEOUT
        )

    await _create_or_check(connection, f"exchange {exchange.name.value!r}", create, check)


async def _create_or_check(
    connection: AbstractConnection,
    what: str,
    create: Callable[[AbstractChannel], Awaitable[None]],
    check: Callable[[AbstractChannel], Awaitable[None]],
) -> None:
    try:
        async with one_channel(connection) as channel:
            await create(channel)
    except ChannelPreconditionFailed as error:
        raise ConfigurationError(
            f"the broker has the {what} with other properties than ORCHESTRATOR_QUEUE_TYPE and this version require: {error}."
            " Drain and delete it, or set ORCHESTRATOR_QUEUE_TYPE to the type that it was declared with"
        ) from error
    except ChannelAccessRefused:
        # A least-privileged user may not declare; an administrator must have done it ('orchestrator topology declare').
        try:
            async with one_channel(connection) as channel:
                await check(channel)
        except (ChannelAccessRefused, ChannelNotFoundEntity) as error:
            raise ConfigurationError(
                f"the {what} is missing or refused, and the broker user of ORCHESTRATOR_AMQP_URL may not declare it: {error}."
                " Run 'orchestrator topology declare' as a user who may, or grant the permission"
            ) from error
