"""Commands that act on many processes: ``orchestrator bulk retry | abort``."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated, Any

import typer

from orchestrator.cli.context import REFUSED, CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import clean, coloured
from orchestrator.cli.process_filter import (
    Assignee,
    Customer,
    Since,
    Statuses,
    Step,
    Subscription,
    Task,
    Until,
    WorkflowName,
    read_id,
    read_moment,
)
from orchestrator.cli.render import fields_of, short
from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.operations.bulk import MOST, BulkAction, BulkOutcome, Selection, act_on_all, select_processes

SHOWN = 20
"""Refusals that people are shown; ``--json`` has all."""


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
    subscription: Subscription = None,
    customer: Customer = None,
    assignee: Assignee = None,
    limit: Limit = MOST,
    yes: Yes = False,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Retry all failed and waiting processes that fit. One that has changed meanwhile is left alone.

    Example: orchestrator bulk retry --step "Configure router" --since 2h; all tasks: orchestrator bulk retry --task
    """
    wanted = ProcessFilter(
        tuple(one.value for one in statuses or ()),
        workflow,
        step,
        task,
        read_moment(since),
        read_moment(until),
        read_id(subscription),
        customer,
        assignee,
    )
    _run(BulkAction.RETRY, wanted, limit, user, None, yes=yes, as_json=as_json)


def abort(
    statuses: Statuses = None,
    workflow: WorkflowName = None,
    step: Step = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    subscription: Subscription = None,
    customer: Customer = None,
    assignee: Assignee = None,
    reason: Annotated[str | None, typer.Option(help="Why; goes into each log.", callback=check_text)] = None,
    limit: Limit = MOST,
    yes: Yes = False,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Abort all unfinished processes that fit. One that has changed meanwhile is left alone.

    Example: orchestrator bulk abort --workflow create_port --status failed --until 2026-11-01 --reason "ordered again"
    """
    wanted = ProcessFilter(
        tuple(one.value for one in statuses or ()),
        workflow,
        step,
        task,
        read_moment(since),
        read_moment(until),
        read_id(subscription),
        customer,
        assignee,
    )
    _run(BulkAction.ABORT, wanted, limit, user, reason, yes=yes, as_json=as_json)


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
                    selection, lambda _, act: context.change(database, publisher, act), user, context.limits, reason
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
