"""``orchestrator check``: what the code of this program would do to the processes and subscriptions that there are."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.migrations import require_modules
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean
from orchestrator.cli.render import short
from orchestrator.db.revisions import known_at_start, list_applied
from orchestrator.services.upgrade_check import Group, UpgradeReport, check_upgrade

SHOWN = 5
"""Processes that a line names."""


def check(
    models: Annotated[
        bool, typer.Option("--models/--no-models", metavar="", help="Compare the models with the subscriptions, too.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check, before you deploy this code, which unfinished processes it would break, and what to do about each.

    Run it with the new code against the database. Exits with 0 when nothing breaks, with 1 when something does.

    Models are compared when all migrations are applied.
    """

    async def body(context: CliContext) -> int:
        require_modules(context)
        context.load_workflows()
        async with context.connection() as connection:
            pending = known_at_start(context.project).find_pending(await list_applied(connection))
        async with context.database() as database, database.transaction() as session:
            report = await check_upgrade(session, models=models and not pending)
        context.output.document({**report.document(), "pending_migrations": pending})
        _show(context, report)
        if pending and models:
            context.output.line(
                (
                    f"models are not compared: {len(pending)} migrations are not applied ('orchestrator db status')",
                    "dim",
                )
            )
        return REFUSED if report.breaks else 0

    execute(body, as_json=as_json)


def _show(context: CliContext, report: UpgradeReport) -> None:
    output = context.output
    place: tuple[str, str | None] | None = None
    for group in report.groups:
        one = group.finding
        if (one.workflow, one.step) != place:
            place = one.workflow, one.step
            output.line((f"{clean(one.workflow)}, at '{clean(one.step or '')}'", "bold"))
        word, style = ("breaks", "red") if one.breaks else ("note", "yellow")
        output.prose((f"{word}: ", style), clean(one.what), f" ({_name(group)})", indent=2)
        output.prose(("do: ", "dim"), clean(one.todo), indent=4)
    if report.models:
        output.line(("models that cannot load all subscriptions", "bold"))
        for line in report.models:
            output.prose(("breaks: ", "red"), clean(line), indent=2)
    several = "processes" if report.unfinished != 1 else "process"
    verdict = "something breaks" if report.breaks else "nothing breaks"
    output.line(f"{report.unfinished} unfinished {several} checked: {verdict}")


def _name(group: Group) -> str:
    several = "process" if group.count == 1 else "processes"
    names = " ".join(short(one) for one in group.process_ids[:SHOWN])
    more = f" and {group.count - SHOWN} more" if group.count > SHOWN else ""
    return f"{group.count} {several}: {names}{more}"
