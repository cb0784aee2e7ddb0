"""Commands that read processes: list, show, watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, Process, Timeout
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
from orchestrator.cli.render import (
    fields_of,
    header,
    log_table,
    process_document,
    state_lines,
    when,
)
from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.engine.log import state_after
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON, ProcessStatus

_WIDTH = 60
"""Characters of a description in the list."""


def list_command(
    statuses: Statuses = None,
    workflow: WorkflowName = None,
    step: Step = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    subscription: Subscription = None,
    customer: Customer = None,
    assignee: Assignee = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")] = 30,
    skip: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out as many of the newest.")] = 0,
    as_json: AsJson = False,
) -> None:
    """List processes, the newest first, with their customers and subscriptions.

    Example: orchestrator list --status failed --status waiting --no-task --since 2h
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

    async def body(context: CliContext) -> None:
        from orchestrator.db.processes.newest import list_processes

        async with context.connection() as connection:
            found = await list_processes(connection, wanted, limit=limit, skip=skip)
        context.output.document(
            [fields_of(one.process) | {"subscriptions": list(map(fields_of, one.subscriptions))} for one in found]
        )
        context.output.table(
            ("id", "workflow", "status", "step", "started", "by", "customer", "subscription"),
            [
                (
                    str(one.process.process_id),
                    clean(one.process.workflow),
                    coloured(one.process.status),
                    clean(one.process.step or ""),
                    when(one.process.started_at),
                    clean(one.process.started_by),
                    _name_first([each.customer_id for each in one.subscriptions]),
                    _name_first([each.description for each in one.subscriptions]),
                )
                for one in found
            ],
            prose="subscription",
            empty="no processes",
        )
        if len(found) == limit:
            shown = f"the newest {limit}" if not skip else f"{limit} from number {skip + 1} on"
            context.output.line((f"{shown}; --limit and --skip show others", "dim"))

    execute(body, as_json=as_json)


def _name_first(texts: Sequence[str]) -> str:
    """Return the first of several texts, and how many others there are."""
    different = list(dict.fromkeys(texts))
    more = f" +{len(different) - 1}" if len(different) > 1 else ""
    return clean(different[0], limit=_WIDTH) + more if different else ""


def show(
    process: Process,
    state: Annotated[bool, typer.Option("--state", metavar="", help="Show the state, too.")] = False,
    at: Annotated[
        int | None,
        typer.Option("--at", min=0, metavar="SEQUENCE", help="Show the state as it was after this entry of the log."),
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", metavar="", help="Show where errors happened.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a process's audit trail: who did what, when, with which result.

    Example: orchestrator show 3f2a9c41 --at 7
    """

    async def body(context: CliContext) -> None:
        from orchestrator.cli.explaining import explain_in_words
        from orchestrator.db.callbacks import read_progress
        from orchestrator.db.lookup import find_process
        from orchestrator.db.processes.queries import read_log, read_process, read_state

        async with context.database() as database:
            async with database.transaction() as session:
                process_id = await find_process(session, process)
                summary = await read_process(session, process_id)
                entries = await read_log(session, process_id)
                callback = await read_progress(session, process_id)
                known = await read_state(session, process_id) if state and at is None else None
            if at is not None:
                newest = entries[-1].sequence if entries else 0
                if at > newest:
                    raise NotFoundError(f"the log has no entry {at}: its newest is {newest}")
                known = state_after(entries, at)
            explanation = await explain_in_words(context, process_id)
            form: JSON = None
            if summary.status == ProcessStatus.SUSPENDED:
                from orchestrator.cli.stored import read_form

                form = await read_form(context, database, process_id)
        document = process_document(summary, entries, callback) | {
            "form": form,
            "explanation": explanation.document(),
            **{name: explanation.data.get(name) for name in ("queue", "waits_for")},
            "readers": explanation.data.get("readers", []),
        }
        context.output.document(document if known is None else document | {"state": known})
        header(context.output, summary, entries, explanation)
        context.output.line()
        log_table(context.output, entries, traceback=traceback)
        if known is not None:
            context.output.line()
            state_lines(context.output, known, "state" if at is None else f"state after entry {at}")
        if summary.status == ProcessStatus.SUSPENDED:
            from orchestrator.cli.watch import show_input_request

            context.output.line()
            show_input_request(context.output, process_id, summary.step, summary.sequence, form)

    execute(body, as_json=as_json)


def explain(process: Process, as_json: AsJson = False) -> None:
    """Say why a process does not go on: what it waits for, since when, and what to do.

    Example: orchestrator explain 3f2a9c41
    """

    async def body(context: CliContext) -> None:
        from orchestrator.cli.explaining import explain_in_words
        from orchestrator.db.lookup import find_process

        async with context.database() as database, database.transaction() as session:
            process_id = await find_process(session, process)
        explanation = await explain_in_words(context, process_id)
        context.output.document({"process_id": process_id, **explanation.document()})
        context.output.line(clean(explanation.summary))
        for line in explanation.details:
            context.output.line(f"  • {clean(line)}")

    execute(body, as_json=as_json)


def watch(
    process: Process,
    timeout: Timeout = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Follow it over HTTP, at the API with this address.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", metavar="KEY", envvar="ORCHESTRATOR_API_KEY", help="An API key or a token, for --url."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a process, step by step, until it ends or needs input or an operator.

    Exits with 0 when it is completed, 1 when it failed or was aborted, 3 when it needs input, 4 after --timeout.

    Example: orchestrator watch --url https://orchestrator.example.net 5596c9de
    """

    async def body(context: CliContext) -> int:
        from orchestrator.cli.stored import StoredProcess
        from orchestrator.cli.watch import follow
        from orchestrator.db.lookup import find_process

        async with context.database() as database:
            async with database.transaction() as session:
                process_id = await find_process(session, process)
            return await follow(context, StoredProcess(context, database, process_id), patience=timeout)

    async def body_over_http(context: CliContext) -> int:
        from orchestrator.cli.remote import open_remote
        from orchestrator.cli.watch import follow

        assert url is not None  # noqa: S101 - checked below
        async with open_remote(url, api_key, process) as source:
            return await follow(context, source, patience=timeout)

    if url is None:
        execute(body, as_json=as_json)
        return
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter("it begins with http:// or https://", param_hint="--url")
    execute(body_over_http, as_json=as_json, needs_settings=False)
