"""Measure how much waits in each queue of the engine."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from orchestrator.broker.topology import FIXED_QUEUES, step_queue

if TYPE_CHECKING:
    from orchestrator.broker.connection import BrokerAddress, QueueDepth


async def measure_all(address: BrokerAddress, names: Collection[str]) -> dict[str, QueueDepth | None]:
    """Measure how much waits in each queue of the engine.

    Args:
        names: of the step queues.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer.
    """
    # Whoever imports this module may not need the broker's client.
    from orchestrator.broker.connection import close, connect, measure

    queues = [*(queue.name for queue in FIXED_QUEUES), *(step_queue(name) for name in sorted(names))]
    connection = await connect(address, "look")
    try:
        return {name: await measure(connection, name) for name in queues}
    finally:
        await close(connection)


def is_unread(depth: QueueDepth | None) -> bool:
    """Return whether messages wait in a queue that no program reads."""
    return depth is not None and depth.ready > 0 and depth.consumers == 0
