"""Commands about the plans of workflows: ``orchestrator plans …``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import clean
from orchestrator.cli.render import fields_of
from orchestrator.db.plans import activate_plan, list_plans


def list_command(
    workflow: Annotated[
        str | None, typer.Argument(metavar="[WORKFLOW]", help="Only the plans of this workflow.", callback=check_text)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the plans of workflows that programs have registered, the newest first.

    Processes are moved to the registered plan of their workflow by programs that have it.
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            found = await list_plans(session, workflow)
        context.output.document([fields_of(one) for one in found])
        context.output.table(
            ("workflow", "plan", "", "fingerprint", "unfinished", "steps", "registered by", "at"),
            [
                (
                    clean(one.workflow),
                    str(one.number),
                    Text("registered", style="green") if one.is_registered else Text(""),
                    one.fingerprint,
                    str(one.unfinished),
                    clean(" >> ".join(str(step["name"]) for step in one.steps)),
                    clean(one.registered_by),
                    f"{one.registered_at:%Y-%m-%d %H:%M:%S}",
                )
                for one in found
            ],
            prose="steps",
            empty="no plans: the first coordinator or consumer that starts registers those of its workflows",
        )

    execute(body, as_json=as_json)


def activate(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.", callback=check_text)],
    number: Annotated[
        int, typer.Argument(metavar="NUMBER", min=1, help="The plan's number, as 'plans list' shows it.")
    ],
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Make an older plan the registered one again: the rollback, after the older code was deployed again.

    Example: orchestrator plans activate create_port 3
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            added = await activate_plan(session, workflow, number, user)
        context.output.line(f"plan {number} of '{clean(workflow)}' is the registered one again, as plan {added}")
        context.output.document({"workflow": workflow, "number": added, "same_as": number})

    execute(body, as_json=as_json)
