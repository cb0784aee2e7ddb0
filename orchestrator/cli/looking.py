"""Commands that look at the engine itself: status and workflows."""

from __future__ import annotations

from dataclasses import dataclass

import typer
from rich.text import Text

from orchestrator.broker.connection import QueueDepth, connect, measure
from orchestrator.broker.topology import FIXED_QUEUES, step_queue
from orchestrator.cli.changing import engine_line
from orchestrator.cli.edge import REFUSED, Edge, execute, explain
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.render import fields_of, seconds
from orchestrator.db.history import list_consumers
from orchestrator.db.migrations import registered
from orchestrator.db.registration.difference import Registration
from orchestrator.errors import ConfigurationError, DefinitionError, ServerUnavailableError
from orchestrator.registry import known_workflows, plan_of
from orchestrator.services.pause import engine_status
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE

PANEL = "Engine"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=PANEL)(status)
    app.command(rich_help_panel=PANEL)(workflows)


def status(as_json: AsJson = False) -> None:
    """Show whether the engine runs, its consumers and when they were last seen, and how much waits in its queues."""

    async def body(edge: Edge) -> int | None:
        async with edge.database() as database, database.transaction() as session:
            engine = await engine_status(session)
            consumers = await list_consumers(session)
        names = {DEFAULT_QUEUE, TASK_QUEUE, *(queue for one in consumers for queue in one.queues)}
        output, code = edge.output, 0
        problem: ServerUnavailableError | ConfigurationError | None = None
        depths: dict[str, QueueDepth | None] = {}
        try:
            depths = await measure_all(edge, names)
        except (ServerUnavailableError, ConfigurationError) as error:
            # What PostgreSQL knows is worth seeing all the same.
            problem, code = error, REFUSED
        dead_after = edge.settings.presumed_dead_after
        output.document(
            {
                "status": engine.word,
                "running": engine.running,
                "consumers": [fields_of(one) | {"alive": one.silent_for <= dead_after} for one in consumers],
                "queues": None
                if problem
                else [{"name": name, **_depth_document(depth)} for name, depth in depths.items()],
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
                    Text(f"{seconds(one.silent_for)} ago", style="" if one.silent_for <= dead_after else "red"),
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
        else:
            for line in explain(problem) or ():
                output.complain(line)
        return code

    execute(body, as_json=as_json)


def workflows(as_json: AsJson = False) -> None:
    """Show which workflows the code and the database know. One can be started when both do."""

    async def body(edge: Edge) -> None:
        edge.learn_workflows()
        async with edge.database() as database, database.transaction() as session:
            stored = {one.name: one for one in await registered(session)}
        found = [_known(name, stored.get(name)) for name in sorted({*known_workflows(), *stored})]
        edge.output.document([fields_of(one) for one in found])
        edge.output.table(
            ("workflow", "target", "kind", "code", "database", "description"),
            [
                (
                    clean(one.name),
                    one.target,
                    "task" if one.is_task else "workflow",
                    Text("yes") if one.in_code else Text("no", style="red"),
                    Text("yes") if one.in_database else Text("no", style="red"),
                    Text(clean(one.error), style="red") if one.error else Text(clean(one.description, limit=80)),
                )
                for one in found
            ],
            prose="description",
            empty="no workflows: set ORCHESTRATOR_WORKFLOWS to the modules that register them",
        )
        if any(one.in_code != one.in_database for one in found):
            edge.output.line(("'orchestrator db migrate-workflows' writes the migration for the difference", "dim"))

    execute(body, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Known:
    name: str
    target: str
    is_task: bool
    description: str
    in_code: bool
    in_database: bool
    error: str | None


def _known(name: str, stored: Registration | None) -> _Known:
    error: str | None = None
    coded: Registration | None = None
    in_code = name in set(known_workflows())
    if in_code:
        try:
            coded = registration_of(name)
        except DefinitionError as wrong:
            # One broken module must not hide the others.
            error = " ".join(str(wrong).split())
    shown = coded or stored or Registration(name, "", False, "")
    return _Known(name, shown.target, shown.is_task, shown.description, in_code, stored is not None, error)


def registration_of(name: str) -> Registration:
    """A workflow as the code knows it.

    Raises:
        DefinitionError: its module is broken.
    """
    workflow = plan_of(name).workflow
    return Registration(name, workflow.target.value, workflow.is_task, workflow.description)


async def measure_all(edge: Edge, step_queues: set[str]) -> dict[str, QueueDepth | None]:
    """How much waits in each queue of the engine.

    Raises:
        ServerUnavailableError: RabbitMQ does not answer.
    """
    names = [*(queue.name for queue in FIXED_QUEUES), *(step_queue(name) for name in sorted(step_queues))]
    connection = await connect(edge.address, "look")
    try:
        return {name: await measure(connection, name) for name in names}
    finally:
        await connection.close()


def depth_cells(depth: QueueDepth | None) -> tuple[Text, Text]:
    """A queue's numbers; a missing queue is said to be missing."""
    if depth is None:
        return Text("missing", style="red"), Text("")
    return Text(str(depth.ready)), Text(str(depth.consumers))


def _depth_document(depth: QueueDepth | None) -> dict[str, int | bool | None]:
    if depth is None:
        return {"exists": False, "ready": None, "consumers": None}
    return {"exists": True, "ready": depth.ready, "consumers": depth.consumers}
