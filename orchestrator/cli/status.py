"""Show whether the engine runs, its consumers and its queues: ``orchestrator status``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.broker.topology import FIXED_QUEUES, step_queue
from orchestrator.cli.context import REFUSED, CliContext, execute, explain
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.queues import UNATTENDED_AFTER, depth_cells, is_unread, measure_all, reader_of
from orchestrator.cli.render import engine_line, fields_of, seconds
from orchestrator.db.status import Unclaimed, list_consumers, list_unclaimed, read_engine_status
from orchestrator.errors import ConfigurationError, DefinitionError, ServerUnavailableError
from orchestrator.registry import queue_of, step_queues
from orchestrator.workflow.values import DEFAULT_QUEUE, TASK_QUEUE

if TYPE_CHECKING:
    from orchestrator.broker.connection import QueueDepth


def status(as_json: AsJson = False) -> None:
    """Show whether the engine runs, its consumers and when they were last seen, and how much waits in its queues."""

    async def body(context: CliContext) -> int | None:
        async with context.connection() as connection:
            engine = await read_engine_status(connection)
            consumers = await list_consumers(connection)
            unclaimed = await list_unclaimed(connection, UNATTENDED_AFTER)
        coded = list_coded_queues(context)
        waiting = [Waiting(one, queue_of(one.workflow, one.step)) for one in unclaimed]
        needed = {DEFAULT_QUEUE, TASK_QUEUE, *(queue for one in consumers for queue in one.queues)}
        needed |= {one.queue for one in waiting if one.queue is not None}
        output, code = context.output, 0
        problem: ServerUnavailableError | ConfigurationError | None = None
        depths: dict[str, QueueDepth | None] = {}
        try:
            depths = await measure_all(context, needed | coded)
            for name in coded - needed:
                # Made when it is first needed.
                if depths[step_queue(name)] is None:
                    del depths[step_queue(name)]
        except (ServerUnavailableError, ConfigurationError) as error:
            # What PostgreSQL knows is worth seeing all the same.
            problem, code = error, REFUSED
        output.document(
            {
                "status": engine.word,
                "running": engine.running,
                "consumers": [fields_of(one) for one in consumers],
                "unclaimed": [one.document() for one in waiting],
                "queues": None
                if problem
                else [{"name": name, **depth_document(depth)} for name, depth in depths.items()],
            }
        )
        output.line(engine_line(engine))
        output.line()
        output.table(
            ("consumer", "queues", "running", "at most", "last seen"),
            [
                (
                    clean(one.name),
                    clean(", ".join(one.queues)),
                    str(one.running),
                    str(one.concurrency),
                    Text(f"{seconds(one.silent_for)} ago")
                    if one.alive
                    else Text(f"{seconds(one.silent_for)} ago: presumed dead", style="red"),
                )
                for one in consumers
            ],
            empty="no consumers: 'orchestrator consumer' starts one, 'orchestrator dev' one with a coordinator",
        )
        if problem is None:
            output.line()
            output.table(
                ("queue", "ready", "consumers"), [(name, *depth_cells(depth)) for name, depth in depths.items()]
            )
            for line in advise(depths, waiting):
                output.line((line, "red"))
        else:
            for line in explain(problem) or ():
                output.complain(line)
        return code

    execute(body, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Steps that no consumer has claimed for a while; ``queue`` is ``None`` when this program does not know their workflow."""

    steps: Unclaimed
    queue: str | None

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {**fields_of(self.steps), "queue": self.queue}


def list_coded_queues(context: CliContext) -> set[str]:
    """Return the step queues that the workflows of this program name; a broken module only causes a note."""
    try:
        context.load_workflows()
    except DefinitionError as error:
        context.output.complain(f"note: step queues may be missing: {clean(error)}")
    return step_queues()


def depth_document(depth: QueueDepth | None) -> dict[str, int | bool | None]:
    """Return a queue's numbers, as JSON."""
    if depth is None:
        return {"exists": False, "ready": None, "consumers": None}
    return {"exists": True, "ready": depth.ready, "consumers": depth.consumers}


def advise(depths: Mapping[str, QueueDepth | None], waiting: Sequence[Waiting]) -> Iterator[str]:
    """Yield what is wrong with the queues, and which program to start."""
    coordinated = {queue.name for queue in FIXED_QUEUES if queue.reader == "coordinator"}
    for name in sorted(coordinated):
        if is_unread(depths.get(name)):
            yield f"no coordinator reads {name}: start 'orchestrator coordinator'"
    prefix = step_queue("")
    unread = {
        name.removeprefix(prefix) for name, depth in depths.items() if name.startswith(prefix) and is_unread(depth)
    }
    missed = {one.queue for one in waiting if one.queue is not None and not _is_read(depths.get(step_queue(one.queue)))}
    for queue in sorted(unread | missed):
        yield f"no consumer reads {step_queue(queue)}: start '{reader_of(queue)}'"
    for one in waiting:
        if one.queue is None:
            steps = one.steps
            several = f"{steps.processes} processes wait" if steps.processes > 1 else "1 process waits"
            yield (
                f"{several} for a consumer at '{clean(steps.step)}' of '{clean(steps.workflow)}', for"
                f" {seconds(steps.longest)}; this program does not know that step (ORCHESTRATOR_WORKFLOWS), and so not its"
                " queue"
            )


def _is_read(depth: QueueDepth | None) -> bool:
    return depth is not None and depth.consumers > 0
