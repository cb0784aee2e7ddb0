"""Report who runs steps and how much waits for them, for the page of settings of a user interface."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from orchestrator.broker.topology import step_queue
from orchestrator.db.status import ConsumerSighting, count_unclaimed, list_consumers, read_engine_status
from orchestrator.errors import ConfigurationError, ServerUnavailableError
from orchestrator.operations.queues import measure_all
from orchestrator.registry import step_queues
from orchestrator.workflow.values import DEFAULT_QUEUE, TASK_QUEUE

if TYPE_CHECKING:
    from orchestrator.broker.connection import BrokerAddress
    from orchestrator.db.session import Driver

PATIENCE = 3.0
"""Seconds that the broker gets to answer: a page waits for it."""


@dataclass(frozen=True, slots=True)
class QueueSight:
    """A queue as the broker has it: messages that wait in it, and programs that read it."""

    name: str
    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Who runs steps, and how much waits.

    Args:
        queued: steps that no consumer has claimed, by the rows.
        running: steps that a consumer runs.
        queues: ``None`` while the broker is away.
        unacked: commands of steps that are in no queue and not claimed: a consumer holds them, or they are lost and are
            published again. ``None`` while the broker is away.
    """

    consumers: Sequence[ConsumerSighting]
    queued: int
    running: int
    queues: Sequence[QueueSight] | None
    unacked: int | None
    at: datetime

    @property
    def online(self) -> int:
        """Return how many consumers are alive."""
        return sum(one.alive for one in self.consumers)


async def read_worker_status(connection: Driver, address: BrokerAddress) -> WorkerStatus:
    """Return who runs steps and how much waits. While the broker is away, what the rows say is returned all the same."""
    engine = await read_engine_status(connection)
    consumers = await list_consumers(connection)
    queued, at = await count_unclaimed(connection)
    names = {DEFAULT_QUEUE, TASK_QUEUE, *step_queues(), *(queue for one in consumers for queue in one.queues)}
    queues: list[QueueSight] | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            depths = await measure_all(address, names)
        queues = [QueueSight(name, one.ready, one.consumers) for name, one in depths.items() if one is not None]
    except (ServerUnavailableError, ConfigurationError, TimeoutError):
        queues = None
    unacked = None
    if queues is not None:
        of_steps = {step_queue(name) for name in names}
        unacked = max(0, queued - sum(one.ready for one in queues if one.name in of_steps))
    return WorkerStatus(consumers, queued, engine.running, queues, unacked, at)
