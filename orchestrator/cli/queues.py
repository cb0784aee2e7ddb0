"""Measure queues; find the one that a process waits in, and the command that reads it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rich.text import Text

from orchestrator.broker.topology import FIXED_QUEUES, step_queue
from orchestrator.cli.context import CliContext
from orchestrator.cli.waiting import Wait
from orchestrator.db.status import list_consumers, read_engine_status, read_runnable_plans
from orchestrator.errors import DefinitionError
from orchestrator.registry import queue_of
from orchestrator.types import ProcessStatus

if TYPE_CHECKING:
    from orchestrator.broker.connection import QueueDepth
    from orchestrator.db.processes.newest import ProcessSummary

UNATTENDED_AFTER = 5.0
"""Seconds without progress after which a missing consumer is reported."""


async def measure_all(context: CliContext, names: Collection[str]) -> dict[str, QueueDepth | None]:
    """Measure how much waits in each queue of the engine.

    Args:
        names: of the step queues.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer.
    """
    from orchestrator.broker.connection import connect, measure

    queues = [*(queue.name for queue in FIXED_QUEUES), *(step_queue(name) for name in sorted(names))]
    connection = await connect(context.address, "look")
    try:
        return {name: await measure(connection, name) for name in queues}
    finally:
        await connection.close()


def depth_cells(depth: QueueDepth | None) -> tuple[Text, Text]:
    """Return a queue's numbers as cells of a table: a missing queue, or one with messages and no reader, is red."""
    if depth is None:
        return Text("missing", style="red"), Text("")
    return Text(str(depth.ready)), Text(str(depth.consumers), style="red" if is_unread(depth) else "")


def is_unread(depth: QueueDepth | None) -> bool:
    """Return whether messages wait in a queue that no program reads."""
    return depth is not None and depth.ready > 0 and depth.consumers == 0


async def find_wait(context: CliContext, process: ProcessSummary) -> Wait | None:
    """Return what a process waits for whose step no consumer has claimed; ``None`` for any other."""
    if process.status != ProcessStatus.RUNNING or process.claimed:
        return None
    try:
        context.load_workflows()
    except DefinitionError:
        queue = None
    else:
        queue = queue_of(process.workflow, process.step)
    async with context.connection() as connection:
        engine = await read_engine_status(connection)
        consumers = await list_consumers(connection)
        plans = await read_runnable_plans(connection, process.process_id)
    return Wait.of(process.workflow, queue, consumers, paused=engine.paused, plans=plans)
