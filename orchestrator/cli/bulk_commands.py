"""Commands that act on many processes: ``orchestrator bulk retry | abort``."""

from __future__ import annotations

import re
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import clean, coloured
from orchestrator.cli.render import fields_of, short
from orchestrator.db.processes.matching import ProcessFilter
from orchestrator.operations.bulk import MOST, BulkAction, BulkOutcome, Selection, act_on_all, select_processes
from orchestrator.types import ProcessStatus

_SPAN = re.compile(r"(\d{1,6})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

SHOWN = 20
"""Refusals that people are shown; ``--json`` has all."""


def read_moment(written: str | None) -> datetime | None:
    """Read a time, or how long ago it was.

    Raises:
        typer.BadParameter: it is neither.
    """
    if written is None:
        return None
    if span := _SPAN.fullmatch(written):
        return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise typer.BadParameter(
            f"{written!r} is no time such as 2026-11-26T09:30, and no span such as 90m, 2h or 1d"
        ) from None
    return moment.astimezone()


Statuses = Annotated[
    list[ProcessStatus] | None,
    typer.Option("--status", metavar="STATUS", help="Only processes in this status; repeatable."),
]
WorkflowName = Annotated[
    str | None, typer.Option("--workflow", metavar="NAME", callback=check_text, help="Only processes of this workflow.")
]
Step = Annotated[
    str | None,
    typer.Option("--step", metavar="NAME", callback=check_text, help="Only processes that stand at this step."),
]
Task = Annotated[bool | None, typer.Option("--task/--no-task", metavar="", help="Only tasks, or only workflows.")]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only processes that changed last at this time or later; or 2h for two hours ago.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only processes that changed last before this time.")
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=MOST, metavar="N", help="How many at most, the oldest first.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]


def retry(
    statuses: Statuses = None,
    workflow: WorkflowName = None,
    step: Step = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = MOST,
    yes: Yes = False,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Retry all failed and waiting processes that fit. One that has changed meanwhile is left alone.

    Example: orchestrator bulk retry --step "Configure router" --since 2h; all tasks: orchestrator bulk retry --task
    """
    wanted = _filter(statuses, workflow, step, task, since, until)
    _run(BulkAction.RETRY, wanted, limit, user, None, yes=yes, as_json=as_json)


def abort(
    statuses: Statuses = None,
    workflow: WorkflowName = None,
    step: Step = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    reason: Annotated[str | None, typer.Option(help="Why; goes into each log.", callback=check_text)] = None,
    limit: Limit = MOST,
    yes: Yes = False,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Abort all unfinished processes that fit. One that has changed meanwhile is left alone.

    Example: orchestrator bulk abort --workflow create_port --status failed --until 2026-11-01 --reason "ordered again"
    """
    wanted = _filter(statuses, workflow, step, task, since, until)
    _run(BulkAction.ABORT, wanted, limit, user, reason, yes=yes, as_json=as_json)


def _filter(
    statuses: list[ProcessStatus] | None,
    workflow: str | None,
    step: str | None,
    task: bool | None,
    since: str | None,
    until: str | None,
) -> ProcessFilter:
    names = tuple(one.value for one in statuses or ())
    return ProcessFilter(names, workflow, step, task, read_moment(since), read_moment(until))


def _run(
    action: BulkAction, wanted: ProcessFilter, limit: int, user: str, reason: str | None, *, yes: bool, as_json: bool
) -> None:
    async def body(context: CliContext) -> int | None:
        context.load_workflows()
        async with context.database() as database:
            selection = await select_processes(database, action, wanted, limit)
            if selection.found and not yes and not _confirm(context, selection):
                return REFUSED
            async with context.publisher() as publisher:
                outcome = await act_on_all(
                    selection, lambda act: context.change(database, publisher, act), user, context.limits, reason
                )
        _show(context, action, outcome)
        return REFUSED if outcome.refusals else None

    execute(body, as_json=as_json)


def _confirm(context: CliContext, selection: Selection) -> bool:
    """Show what is to happen and ask; whoever cannot be asked has not agreed."""
    output, verb = context.output, selection.action.value
    many = len(selection.found)
    if output.as_json or not sys.stdin.isatty():
        output.complain(f"this would {verb} {many} of {selection.matched} processes: repeat it with --yes")
        output.document({"matched": selection.matched, "done": 0, "refusals": [], "left": selection.matched})
        return False
    counted = Counter((one.workflow, one.status) for one in selection.found)
    output.table(
        ("workflow", "status", "processes"),
        [(clean(workflow), coloured(status), str(count)) for (workflow, status), count in sorted(counted.items())],
    )
    return typer.confirm(f"{verb} {many} {'process' if many == 1 else 'processes'}?")


def _show(context: CliContext, action: BulkAction, outcome: BulkOutcome) -> None:
    output = context.output
    document: dict[str, Any] = {
        "matched": outcome.matched,
        "done": outcome.done,
        "refusals": [fields_of(one) for one in outcome.refusals],
        "left": outcome.left,
    }
    output.document(document)
    done = "retried" if action is BulkAction.RETRY else "aborted"
    output.line(f"{outcome.done} of {outcome.matched} processes {done}")
    for one in outcome.refusals[:SHOWN]:
        output.complain(f"{short(one.process_id)} {clean(one.workflow)}: {clean(one.detail)}")
    if len(outcome.refusals) > SHOWN:
        output.complain(f"and {len(outcome.refusals) - SHOWN} more: --json shows all")
    if outcome.left:
        output.line((f"{outcome.left} more fit: repeat the command", "dim"))
