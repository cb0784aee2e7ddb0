"""Ask the broker how many messages wait in queues, over a persistent connection."""

from __future__ import annotations

from collections.abc import Iterable

from aio_pika.abc import AbstractConnection

from orchestrator.broker.connection import BROKER_ERRORS, BrokerAddress, QueueDepth, close, connect, measure
from orchestrator.errors import PublishError, ServerUnavailableError
from orchestrator.text import format_message


class Depths:
    """Reads the depths of queues, over a connection apart from publishers', because a broker in alarm does not read these."""

    def __init__(self, address: BrokerAddress, purpose: str) -> None:
        self._address = address
        self._purpose = purpose
        self._connection: AbstractConnection | None = None

    async def read(self, queues: Iterable[str]) -> dict[str, QueueDepth]:
        """Return the depth of each queue; one that does not exist is empty.

        Raises:
            PublishError: the broker is unreachable.
        """
        try:
            if self._connection is None or self._connection.is_closed:
                self._connection = await connect(self._address, self._purpose)
            found = {queue: await measure(self._connection, queue) for queue in queues}
        except ServerUnavailableError as error:
            raise PublishError(str(error)) from error
        except BROKER_ERRORS as error:
            await self.close()
            raise PublishError(format_message(error)) from error
        return {queue: depth or QueueDepth(queue, 0, 0) for queue, depth in found.items()}

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed:
            await close(connection)
