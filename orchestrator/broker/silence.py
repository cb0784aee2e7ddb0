"""Notice a broker or a network path that has fallen silent, by AMQP heartbeats on both ends."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.connection import Connection, TransportFactory
from yarl import URL

from orchestrator.broker.wire import Wire, keep_wire, open_wire
from orchestrator.sockets import Socket, notice_loss, silent_for

logger = structlog.get_logger(__name__)

LEAST_HEARTBEAT = 2
"""The shortest interval in seconds: the broker closes connections of a program whose event loop is blocked for two of them."""

CHECK_INTERVAL = 0.5
"""Seconds between two checks for input, which cost no message."""

NEVER = 86_400.0
_LIBRARY_LIMIT = "_Connection__heartbeat_grace_timeout"


def with_heartbeat(url: URL, silent_after: float) -> URL:
    """Return the URL of a broker with a heartbeat, unless it names one.

    The broker closes a connection after two to three silent intervals, and so in less than ``silent_after``; then others get
    the messages that this program has not acknowledged. By default that would take two to three minutes.
    """
    if "heartbeat" in url.query:
        return url
    return url.update_query(heartbeat=str(max(LEAST_HEARTBEAT, int(silent_after / 3))))


class Transports(TransportFactory):
    """Opens the connection of an AMQP client, and closes it when it has fallen silent.

    Args:
        host: the broker's name in the log.
        silent_after: seconds of silence after which a machine counts as gone.
    """

    def __init__(self, host: str, silent_after: float) -> None:
        self._host = host
        self._silent_after = silent_after
        self._socket: Socket | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._wire: Wire | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection with the URL's options."""
        self._wire, writer = await open_wire(url, **options)
        self._socket, self._transport = writer.get_extra_info("socket"), writer.transport
        notice_loss(self._socket, self._silent_after)
        return self._wire, writer

    def watch(self, connection: AbstractConnection) -> None:
        """Close the connection when nothing comes from the broker, which sends something twice in each heartbeat interval."""
        assert connection.transport is not None  # noqa: S101 - it is connected
        lower = connection.transport.connection
        assert isinstance(lower, Connection)  # noqa: S101 - the library has no other kind
        assert self._wire is not None  # noqa: S101 - it is connected
        keep_wire(lower, self._wire)
        if not lower.heartbeat_timeout or silent_for(self._socket) is None:
            return
        # The library does so itself after three intervals, but it cancels the waiting tasks as if the program did. It also
        # mistakes a blocked event loop for a silent broker.
        setattr(lower, _LIBRARY_LIMIT, NEVER)
        self._look(lower, 2 * lower.heartbeat_timeout + 2)

    def _look(self, lower: Connection, limit: float) -> None:
        assert self._transport is not None  # noqa: S101 - it is connected
        if lower.is_closed or self._transport.is_closing():
            return
        seconds = silent_for(self._socket)
        if seconds is not None and seconds > limit:
            logger.warning("RabbitMQ is silent; connection thrown away", server=self._host, seconds=round(seconds, 1))
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._look, lower, limit)
