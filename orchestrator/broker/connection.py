"""Connect to RabbitMQ and declare the topology; translate the client library's errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import aio_pika
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
from orchestrator.broker.silence import Transports, with_heartbeat
from orchestrator.broker.topology import EXCHANGES, Exchange, Queue, Topology
from orchestrator.diagnostics import comes_from
from orchestrator.errors import ConfigurationError, ServerUnavailableError
from orchestrator.hosts import hide_password, host_of, program_name, split_hosts
from orchestrator.outage import Outage
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.settings import Settings
from orchestrator.stopping import raise_if_cancelled, wait_or_stop
from orchestrator.text import format_message

BROKER_ERRORS = (AMQPError, OSError, TimeoutError, *CONNECTION_EXCEPTIONS)
"""The errors that the client library raises when the broker is down, restarting or refuses the connection."""

DECLARE_TIMEOUT = 10.0
"""Seconds for one declaration. A broker that has just started answers slowly, and one in alarm does not answer."""

CLOSE_TIMEOUT = 3.0
"""Seconds for the broker's answer to a close."""

_CLIENT = {"aio_pika", "aiormq", "pamqp"}

STABLE_AFTER = 30.0
"""Seconds of connection after which the back-off starts again with a short pause."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The address of RabbitMQ, and the name under which a program connects.

    Args:
        url: ``amqp://…``, with the password; it may name several hosts, the nodes of a cluster.
        name: of connections and consumers in the management UI: which program, and where it runs.
        connect_timeout: seconds that each host may take to answer.
        silent_after: seconds of silence after which a broker counts as gone.
    """

    url: str
    name: str
    connect_timeout: float
    silent_after: float = 10.0
    _urls: deque[str] = field(default_factory=deque, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._urls.extend(split_hosts(self.url))

    @classmethod
    def of(cls, settings: Settings, name: str) -> BrokerAddress:
        """Return the address in the settings, for a program of this kind."""
        name = f"{name} {program_name()}"
        return cls(settings.amqp_url.get_secret_value(), name, settings.connect_timeout, settings.presumed_dead_after)

    def next_urls(self) -> list[str]:
        """Return a URL for each host, in the order in which to try them; each call begins with another host.

        So the connections of a program are spread over the nodes, and a useless node is not tried first again.
        """
        urls = list(self._urls)
        self._urls.rotate(-1)
        return urls

    def __str__(self) -> str:
        return hide_password(self.url)


def is_broker_outage(error: BaseException) -> bool:
    """Return whether an error means that RabbitMQ is down or refuses the connection, rather than a defect of code."""
    return isinstance(error, BROKER_ERRORS) and comes_from(error, "orchestrator.broker", _CLIENT)


async def connect(address: BrokerAddress, purpose: str) -> AbstractConnection:
    """Open a plain connection. Callers reconnect in a loop of their own, because they must open their channels again, too.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer or refuses the connection; the text is one line.
    """
    tolerate_unreadable_properties()
    failures: dict[str, Exception] = {}
    for url in address.next_urls():
        try:
            return await _open(url, f"{address.name} ({purpose})", address)
        except (*BROKER_ERRORS, ValueError) as error:
            failures[host_of(url)] = error
    reasons = [(host, _explain(error, address.connect_timeout)) for host, error in failures.items()]
    reason = reasons[0][1] if len(reasons) == 1 else "; ".join(f"{host}: {why}" for host, why in reasons)
    raise ServerUnavailableError(
        f"RabbitMQ at {address} cannot be used: {reason} (check ORCHESTRATOR_AMQP_URL and that it runs)"
    ) from failures.popitem()[1]


async def _open(url: str, name: str, address: BrokerAddress) -> AbstractConnection:
    connection: aio_pika.Connection | None = None
    try:
        place = with_heartbeat(make_url(url), address.silent_after)
        connection = aio_pika.Connection(place, client_properties={"connection_name": name})
        transports = Transports(host_of(url), address.silent_after)
        connection.kwargs["transport_factory"] = transports
        await connection.connect(timeout=address.connect_timeout)
        transports.watch(connection)
    except BaseException:
        if connection is not None:
            # Otherwise the client library closes it when it is garbage-collected, in a task that nothing awaits.
            with contextlib.suppress(*BROKER_ERRORS):
                await close(connection)
        raise
    return connection


async def close(connection: AbstractConnection | AbstractChannel) -> None:
    """Close a connection or a channel, without waiting for long, because a frozen broker does not answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await connection.close()


def _explain(error: Exception, patience: float) -> str:
    reason = " ".join(format_message(error).split())
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {patience:g} s"
    if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in reason:
        # The broker closed the connection because of the virtual host; the client library drops its message.
        return "the virtual host does not exist, or this user may not use it"
    return reason


async def declare(connection: AbstractConnection, topology: Topology) -> None:
    """Declare every exchange, queue and binding. Idempotent.

    Raises:
        ConfigurationError: one of them exists with other properties, or this user may not declare it.
    """
    errors: list[ConfigurationError] = []
    declarations = [
        *(partial(_declare_exchange, connection, exchange) for exchange in EXCHANGES),
        *(partial(declare_queue, connection, queue, topology) for queue in topology.queues),
    ]
    for one in declarations:
        try:
            await one()
        except ConfigurationError as error:
            # The others are declared all the same.
            errors.append(error)
    if errors:
        raise errors[0]
    # Last, because the former bindings route the messages until the new ones exist.
    for queue in topology.queues:
        for key in queue.former:
            await _unbind(connection, queue, key)


async def restore(connection: AbstractConnection, topology: Topology) -> bool:
    """Declare everything if an exchange or a queue is missing; return whether one was.

    A program that reconnects to a cluster must not declare bindings: while a node is frozen the others wait for it before they
    declare one, even if it exists already.

    Raises:
        ConfigurationError: see :func:`declare`.
    """
    try:
        async with one_channel(connection) as channel:
            for exchange in EXCHANGES:
                await _check_exchange(channel, exchange)
            for queue in topology.queues:
                await channel.declare_queue(queue.name, passive=True, timeout=DECLARE_TIMEOUT)
    except (ChannelNotFoundEntity, ChannelAccessRefused):
        await declare(connection, topology)
        return True
    return False


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
async def one_channel(connection: AbstractConnection, *, confirms: bool = False) -> AsyncIterator[AbstractChannel]:
    """Open a channel for one request that the broker may answer by closing the channel."""
    channel = await asyncio.wait_for(connection.channel(publisher_confirms=confirms), DECLARE_TIMEOUT)
    try:
        yield channel
    finally:
        if not channel.is_closed:
            await close(channel)


async def raw_channel(channel: AbstractChannel) -> Channel:
    """Return the client library's lower channel, which can publish and acknowledge without waiting for the socket."""
    lower = await channel.get_underlay_channel()
    assert isinstance(lower, Channel)  # noqa: S101 - the library has no other kind
    return lower


def raise_close_reason(channel: Channel) -> None:
    """Raise the broker's reason for closing this channel or its connection, so that it is logged."""
    closing = channel.closing
    error = closing.exception() if closing.done() and not closing.cancelled() else None
    if isinstance(error, BROKER_ERRORS):
        raise error


Once = Callable[[Callable[[], None]], Awaitable[None]]
"""Connects, calls what it is given, and returns or raises when its connection is lost."""


async def supervise(name: str, once: Once, stopping: asyncio.Event) -> None:
    """Run ``once`` repeatedly until ``stopping`` is set, with growing pauses while it fails.

    Many programs lose the broker at the same moment; the jitter of the pauses keeps them from reconnecting at the same moment.
    """
    failures = 0
    outage = Outage("broker connection lost", "connected to the broker again", loop=name)
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        began = loop.time()
        try:
            await once(outage.over)
        except (ServerUnavailableError, ConfigurationError, *BROKER_ERRORS) as error:
            outage.report(error)
        else:
            if not stopping.is_set():
                outage.report()
        raise_if_cancelled()
        if loop.time() - began > STABLE_AFTER:
            failures = 0
        failures += 1
        await wait_or_stop(backoff(SERVER_AWAY, failures), stopping)


async def _unbind(connection: AbstractConnection, queue: Queue, key: str) -> None:
    # A user that may not declare may not unbind either; then an administrator does both.
    with contextlib.suppress(ChannelAccessRefused):
        async with one_channel(connection) as channel:
            declared = await channel.get_queue(queue.name, ensure=False)
            await declared.unbind(queue.exchange.value, key, timeout=DECLARE_TIMEOUT)


async def _declare_exchange(connection: AbstractConnection, exchange: Exchange) -> None:
    async def create(channel: AbstractChannel) -> None:
        await channel.declare_exchange(exchange.name.value, exchange.type, durable=True, timeout=DECLARE_TIMEOUT)

    async def check(channel: AbstractChannel) -> None:
        await _check_exchange(channel, exchange)

    await _create_or_check(connection, f"exchange {exchange.name.value!r}", create, check)


async def _check_exchange(channel: AbstractChannel, exchange: Exchange) -> None:
    await channel.declare_exchange(
        exchange.name.value, exchange.type, durable=True, passive=True, timeout=DECLARE_TIMEOUT
    )


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
        # A least-privileged user may not declare; an administrator must have run 'orchestrator topology declare'.
        try:
            async with one_channel(connection) as channel:
                await check(channel)
        except (ChannelAccessRefused, ChannelNotFoundEntity) as error:
            raise ConfigurationError(
                f"the {what} is missing or refused, and the broker user of ORCHESTRATOR_AMQP_URL may not declare it: {error}."
                " Run 'orchestrator topology declare' as a user who may, or grant the permission"
            ) from error
