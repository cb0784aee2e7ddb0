"""Leave out queues that do not answer while the broker does, until they answer again.

A quorum queue has no leader while most of its nodes are down, and by a defect of the broker after some crashes (see
docs/servers.md). A request to consume it gets no answer, and after some seconds the broker closes the connection with all other
consumers on it. So such a queue is tried again over a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from aiormq.exceptions import ConnectionInternalError

from orchestrator.broker.connection import (
    BROKER_ERRORS,
    DECLARE_TIMEOUT,
    BrokerAddress,
    close,
    connect,
    raw_channel,
)
from orchestrator.errors import ServerUnavailableError
from orchestrator.retry import SERVER_AWAY, backoff
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

NO_ANSWER: Final = (TimeoutError, ConnectionInternalError)
"""The errors of a request to consume a queue that has no leader."""


class SilentQueues:
    """The queues of a program that did not answer while others did.

    Args:
        number: how many queues the program consumes. If none answers, the broker itself does not.
    """

    def __init__(self, address: BrokerAddress, number: int) -> None:
        self._address = address
        self._number = number
        self._names: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, queue: str) -> bool:
        return queue in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    @contextmanager
    def noted(self, queue: str) -> Iterator[None]:
        """Leave a queue out from now on if the request in the block gets no answer, unless no other queue is left."""
        try:
            yield
        except NO_ANSWER as error:
            self._add(queue, error)
            raise

    def _add(self, queue: str, error: BaseException) -> None:
        if len(self._names) + 1 >= self._number:
            self._names.clear()
            return
        self._names.add(queue)
        logger.error(
            "a queue does not answer: the others are consumed without it, and it when it answers; it may have no leader, see"
            " docs/servers.md",
            queue=queue,
            error=format_message(error),
        )

    async def wait_for_one(self, stopping: asyncio.Event) -> str | None:
        """Wait for a queue that answers again, and return it, no longer left out; ``None`` when the program stops first."""
        if not self._names:
            await stopping.wait()
        tries = 1
        while not await wait_or_stop(backoff(SERVER_AWAY, tries), stopping):
            tries += 1
            for queue in self:
                if await self._answers(queue):
                    self._names.discard(queue)
                    logger.warning("a queue answers again", queue=queue)
                    return queue
        return None

    async def _answers(self, queue: str) -> bool:
        try:
            connection = await connect(self._address, "queue without an answer")
        except ServerUnavailableError:
            return False
        try:
            async with asyncio.timeout(DECLARE_TIMEOUT):
                channel = await raw_channel(await connection.channel(publisher_confirms=False))
                # A message that this consumer gets is requeued when the connection closes.
                await channel.basic_get(queue, no_ack=False)
        except BROKER_ERRORS:
            return False
        else:
            return True
        finally:
            await close(connection)
