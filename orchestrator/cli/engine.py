"""Commands that look at the engine itself: status and workflows."""

from __future__ import annotations

from dataclasses import dataclass

import typer
from rich.text import Text

from orchestrator.broker.connection import QueueDepth
from orchestrator.broker.topology import step_queue
from orchestrator.cli.context import REFUSED, Edge, execute, explain
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.process_commands import engine_line
from orchestrator.cli.queues import Waiting, advice, depth_cells, depth_document, measure_all, queues_of_code
from orchestrator.cli.render import fields_of, seconds
from orchestrator.cli.watch import UNATTENDED_AFTER
from orchestrator.db.consumers import list_consumers
from orchestrator.db.migrations import registered
from orchestrator.db.processes.queries import list_unclaimed
from orchestrator.db.registration.autogenerate import Registration
from orchestrator.errors import ConfigurationError, DefinitionError, ServerUnavailableError
from orchestrator.registry import known_workflows, plan_of, queue_of
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
            unclaimed = await list_unclaimed(session, UNATTENDED_AFTER)
        coded = queues_of_code(edge)
        waiting = [Waiting(one, queue_of(one.workflow, one.step)) for one in unclaimed]
        needed = {DEFAULT_QUEUE, TASK_QUEUE, *(queue for one in consumers for queue in one.queues)}
        needed |= {one.queue for one in waiting if one.queue is not None}
        output, code = edge.output, 0
        problem: ServerUnavailableError | ConfigurationError | None = None
        depths: dict[str, QueueDepth | None] = {}
        try:
            depths = await measure_all(edge, needed | coded)
            for name in coded - needed:
                # Made when it is first needed.
                if depths[step_queue(name)] is None:
                    del depths[step_queue(name)]
        except (ServerUnavailableError, ConfigurationError) as error:
            # What PostgreSQL knows is worth seeing all the same.
            problem, code = error, REFUSED
        dead_after = edge.settings.presumed_dead_after
        output.document(
            {
                "status": engine.word,
                "running": engine.running,
                "consumers": [fields_of(one) | {"alive": one.silent_for <= dead_after} for one in consumers],
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
                    if one.silent_for <= dead_after
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
            for told in advice(depths, waiting):
                output.line((told, "red"))
        else:
            for line in explain(problem) or ():
                output.complain(line)
        return code

    execute(body, as_json=as_json)


def workflows(as_json: AsJson = False) -> None:
    """Show which workflows the code and the database know. One can be started when both do.

    Exits with 1 when the code of one is broken.
    """

    async def body(edge: Edge) -> int:
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
                    Text("broken" if one.error else "no", style="red") if one.error or not one.in_code else Text("yes"),
                    Text("yes") if one.in_database else Text("no", style="red"),
                    clean(one.description, limit=80),
                )
                for one in found
            ],
            prose="description",
            empty="no workflows: set ORCHESTRATOR_WORKFLOWS to the modules that register them",
        )
        # One broken module may hold many workflows.
        wrong = list(dict.fromkeys(one.error for one in found if one.error))
        for error in wrong:
            edge.output.complain(f"broken: {clean(error)}")
        if any(one.in_code != one.in_database for one in found):
            edge.output.line(("'orchestrator db migrate-workflows' writes the migration for the difference", "dim"))
        return REFUSED if wrong else 0

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
