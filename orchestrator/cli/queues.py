"""The broker's queues and who reads them, and what to start when nobody does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from orchestrator.broker.connection import QueueDepth, connect, measure
from orchestrator.broker.topology import FIXED_QUEUES, step_queue
from orchestrator.cli.context import Edge
from orchestrator.cli.output import clean
from orchestrator.cli.render import fields_of, seconds
from orchestrator.db.processes.queries import ProcessSummary, Unclaimed
from orchestrator.errors import DefinitionError
from orchestrator.registry import queue_of, step_queues
from orchestrator.types import ProcessStatus
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE


@dataclass(frozen=True, slots=True)
class Waiting:
    """Steps that nobody has claimed for a while; ``queue`` is ``None`` when this program does not know their workflow."""

    steps: Unclaimed
    queue: str | None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**fields_of(self.steps), "queue": self.queue}


def queues_of_code(edge: Edge) -> set[str]:
    """The step queues that the workflows of this program name; a broken module is no reason to show nothing."""
    try:
        edge.learn_workflows()
    except DefinitionError as error:
        edge.output.complain(f"note: step queues may be missing: {clean(error)}")
    return step_queues()


def queue_waited_for(edge: Edge, process: ProcessSummary) -> str | None:
    """The step queue in which a process waits for a consumer, if it does and this program knows its workflow."""
    if process.status != ProcessStatus.RUNNING or process.claimed:
        return None
    try:
        edge.learn_workflows()
    except DefinitionError:
        return None
    return queue_of(process.workflow, process.step)


async def measure_all(edge: Edge, names: Collection[str]) -> dict[str, QueueDepth | None]:
    """How much waits in each queue of the engine.

    Args:
        names: of the step queues.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer.
    """
    queues = [*(queue.name for queue in FIXED_QUEUES), *(step_queue(name) for name in sorted(names))]
    connection = await connect(edge.address, "look")
    try:
        return {name: await measure(connection, name) for name in queues}
    finally:
        await connection.close()


def depth_cells(depth: QueueDepth | None) -> tuple[Text, Text]:
    """A queue's numbers. A missing queue is said to be missing, and nobody who reads what waits is red."""
    if depth is None:
        return Text("missing", style="red"), Text("")
    return Text(str(depth.ready)), Text(str(depth.consumers), style="red" if is_unread(depth) else "")


def depth_document(depth: QueueDepth | None) -> dict[str, int | bool | None]:
    """A queue's numbers, as JSON."""
    if depth is None:
        return {"exists": False, "ready": None, "consumers": None}
    return {"exists": True, "ready": depth.ready, "consumers": depth.consumers}


def is_unread(depth: QueueDepth | None) -> bool:
    """Whether something waits in a queue and nobody reads it."""
    return depth is not None and depth.ready > 0 and depth.consumers == 0


def advice(depths: Mapping[str, QueueDepth | None], waiting: Sequence[Waiting]) -> Iterator[str]:
    """What is wrong with the queues, and what to start."""
    coordinated = {queue.name for queue in FIXED_QUEUES if queue.reader == "coordinator"}
    for name in sorted(coordinated):
        if is_unread(depths.get(name)):
            yield f"nobody reads {name}: start 'orchestrator coordinator'"
    prefix = step_queue("")
    unread = {
        name.removeprefix(prefix) for name, depth in depths.items() if name.startswith(prefix) and is_unread(depth)
    }
    missed = {one.queue for one in waiting if one.queue is not None and not _is_read(depths.get(step_queue(one.queue)))}
    for queue in sorted(unread | missed):
        yield f"nobody reads {step_queue(queue)}: start '{reader_of(queue)}'"
    for one in waiting:
        if one.queue is None:
            steps = one.steps
            several = f"{steps.processes} processes wait" if steps.processes > 1 else "1 process waits"
            yield (
                f"{several} for a consumer at '{clean(steps.step)}' of '{clean(steps.workflow)}', for"
                f" {seconds(steps.longest)}; this program does not know that step (ORCHESTRATOR_WORKFLOWS), and so not its"
                " queue"
            )


def reader_of(queue: str) -> str:
    """The command that reads a step queue."""
    return "orchestrator consumer" if queue in {DEFAULT_QUEUE, TASK_QUEUE} else f"orchestrator consumer --queue {queue}"


def _is_read(depth: QueueDepth | None) -> bool:
    return depth is not None and depth.consumers > 0
