"""Declare again what was deleted under running programs: exchanges, queues and bindings."""

from __future__ import annotations

import asyncio

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from orchestrator.broker.connection import (
    BROKER_ERRORS,
    DECLARE_TIMEOUT,
    BrokerAddress,
    close,
    connect,
    one_channel,
    restore,
)
from orchestrator.broker.topology import Topology
from orchestrator.errors import ConfigurationError, ServerUnavailableError
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

INTERVAL = 5.0
"""Seconds between two checks."""


class Upkeep:
    """Checks every few seconds that everything exists. Run :meth:`run` in long-lived programs.

    A program that publishes to a missing queue declares it again. But the broker silently drops messages of other services to
    an exchange whose binding is missing.
    """

    def __init__(self, address: BrokerAddress, topology: Topology) -> None:
        self._address = address
        self._topology = topology
        self._connection: AbstractConnection | None = None
        self._may_bind = True
        self._problem = ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Check and declare until ``stopping`` is set."""
        try:
            while not await wait_or_stop(INTERVAL, stopping):
                await self._try_once()
        finally:
            await self._close()

    async def _try_once(self) -> None:
        try:
            await self._once()
        except ConfigurationError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error("part of the topology is missing and cannot be declared", error=self._problem)  # noqa: TRY400
        except (ServerUnavailableError, *BROKER_ERRORS) as error:
            # The publisher and the consumers log it.
            logger.debug("topology not looked at", error=format_message(error))
            await self._close()
        else:
            self._problem = ""

    async def _once(self) -> None:
        if self._connection is None or self._connection.is_closed:
            self._connection = await connect(self._address, "topology")
        if await restore(self._connection, self._topology):
            logger.warning("exchanges or queues were missing and are declared again")
        elif self._may_bind:
            await self._bind(self._connection)

    async def _bind(self, connection: AbstractConnection) -> None:
        """Declare all bindings: AMQP cannot ask whether one exists, and to declare it again changes nothing."""
        try:
            async with one_channel(connection) as channel:
                for queue in self._topology.queues:
                    found = await channel.get_queue(queue.name, ensure=False)
                    for key in queue.keys:
                        await found.bind(queue.exchange.value, key, timeout=DECLARE_TIMEOUT)
        except ChannelNotFoundEntity:
            # Deleted at this moment; the next check declares it.
            return
        except ChannelAccessRefused:
            # Only an administrator may declare, who has to do it again.
            self._may_bind = False

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed:
            await close(connection)
