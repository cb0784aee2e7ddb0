"""Compare the workflows that the code and the database know: ``orchestrator workflows``."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.render import fields_of
from orchestrator.db.revisions import explain_age
from orchestrator.db.workflows import Registration, list_workflows
from orchestrator.errors import DefinitionError
from orchestrator.registry import known_workflows
from orchestrator.services.registrations import describe_workflow


def workflows(as_json: AsJson = False) -> None:
    """Show which workflows the code and the database know. One can be started when both do.

    Exits with 1 when the code of one is broken.
    """

    async def body(context: CliContext) -> int:
        context.load_workflows()
        async with context.database() as database, database.transaction() as session:
            stored = {one.name: one for one in await list_workflows(session)}
            age = await explain_age(session)
        found = [_compare(name, stored.get(name)) for name in sorted({*known_workflows(), *stored})]
        context.output.document([fields_of(one) for one in found])
        context.output.table(
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
        broken = list(dict.fromkeys(one.error for one in found if one.error))
        for error in broken:
            context.output.complain(f"broken: {clean(error)}")
        if any(one.in_code != one.in_database for one in found):
            advice = "'orchestrator db migrate-workflows' writes the migration for the difference"
            context.output.line((age or advice, "dim"))
        return REFUSED if broken else 0

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


def _compare(name: str, stored: Registration | None) -> _Known:
    error: str | None = None
    coded: Registration | None = None
    in_code = name in set(known_workflows())
    if in_code:
        try:
            coded = describe_workflow(name, stored)
        except DefinitionError as broken:
            # One broken module must not hide the others.
            error = " ".join(str(broken).split())
    shown = coded or stored or Registration(name, "", False, "")
    return _Known(name, shown.target, shown.is_task, shown.description, in_code, stored is not None, error)
