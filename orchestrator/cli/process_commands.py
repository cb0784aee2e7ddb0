"""Commands that start processes and change them. Each commits first and then notifies the coordinators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID

import typer
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.forms import show_next_page
from orchestrator.cli.options import (
    AsJson,
    Pages,
    Process,
    Reason,
    Seen,
    Timeout,
    User,
    Wait,
    check_text,
    read_changes,
    read_pages,
    user_name,
)
from orchestrator.cli.output import clean, coloured
from orchestrator.cli.render import short
from orchestrator.cli.stored import StoredProcess, read_form
from orchestrator.cli.watch import follow, show_input_request
from orchestrator.db.lookup import find_process
from orchestrator.errors import FormIncompleteError
from orchestrator.messages import Advanced
from orchestrator.services import control, notes
from orchestrator.services.start import StartRequest
from orchestrator.services.start import start as start_process


def start(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.", callback=check_text)],
    pages: Pages = None,
    user: User = user_name(),
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            callback=check_text,
            help="Makes repeating the command harmless: one process for one key.",
        ),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Start a workflow.

    Without its form filled in, the next page's fields are shown and nothing is started.

    Example: orchestrator start create_port --input '{"node": "ams-1"}' --input @page2.json --wait
    """
    inputs = read_pages(pages)
    if key is not None and not 0 < len(key) <= 255:  # noqa: PLR2004 - as in messages
        raise typer.BadParameter("an idempotency key has 1 to 255 characters", param_hint="--key")

    async def body(context: CliContext) -> int | None:
        context.load_workflows()
        request = StartRequest(workflow, inputs, user, key)
        async with context.database() as database:
            async with context.publisher() as publisher:
                try:
                    async with database.transaction() as session:
                        outcome = await start_process(session, request, context.limits)
                except FormIncompleteError as error:
                    command = f"orchestrator start {workflow}"
                    return show_next_page(context.output, error, command, pages or [])
                if outcome.created:
                    await context.notify(publisher, outcome.process_id, workflow)
            outcome_text = "started" if outcome.created else "was started before with this key"
            context.output.line(f"process {outcome.process_id} of '{clean(workflow)}' {outcome_text}")
            if wait:
                return await follow(
                    context,
                    StoredProcess(context, database, outcome.process_id),
                    patience=timeout,
                    created=outcome.created,
                )
            context.output.line((f"follow it: orchestrator watch {short(outcome.process_id)}", "dim"))
            context.output.document({"process_id": outcome.process_id, "created": outcome.created})
        return None

    execute(body, as_json=as_json)


def resume(
    process: Process,
    pages: Pages = None,
    seen: Seen = None,
    user: User = user_name(),
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Give a suspended process its input. A failed or waiting one is retried.

    Example: orchestrator resume 3f2a9c41 --input '{"approved": true}' --wait
    """
    inputs = read_pages(pages)

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.resume(session, process_id, inputs, user, context.limits, seen=seen)

    _change(process, act, "resumed", as_json=as_json, wait=wait, timeout=timeout, pages=pages)


def retry(
    process: Process,
    seen: Seen = None,
    user: User = user_name(),
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Try a failed or waiting process again, from the state after its last successful step."""

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.retry(session, process_id, user, context.limits, seen=seen)

    _change(process, act, "retried", as_json=as_json, wait=wait, timeout=timeout)


def abort(
    process: Process,
    reason: Annotated[str | None, typer.Option(help="Why; goes into the process's log.", callback=check_text)] = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """End a process at once. A step that runs at this moment leaves no trace in the database."""

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.abort(session, process_id, user, context.limits, reason)

    _change(process, act, "aborted", as_json=as_json)


def patch(
    process: Process,
    reason: Reason,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=JSON", callback=check_text, help="Set a key of the state; repeatable."),
    ] = None,
    removed: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="KEY", callback=check_text, help="Remove a key of the state; repeatable."),
    ] = None,
    seen: Seen = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Correct the state of a failed or suspended process. The correction is logged with its reason.

    Example: orchestrator patch 3f2a9c41 --set vlan=142 --set 'name="ams-1"' --remove port --reason "typo in CRM"
    """
    wanted = read_changes(changes)
    if not wanted and not removed:
        raise typer.BadParameter("nothing to do: give --set KEY=JSON or --remove KEY")

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.patch(session, process_id, user, reason, wanted, removed or (), context.limits, seen=seen)

    _change(process, act, "patched", as_json=as_json)


def skip(
    process: Process,
    reason: Reason,
    seen: Seen = None,
    user: User = user_name(),
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Leave out the step at which a process has failed, and go on after it. Logged with its reason."""

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.skip(session, process_id, user, reason, context.limits, seen=seen)

    _change(process, act, "skipped its step", as_json=as_json, wait=wait, timeout=timeout)


def rewind(
    process: Process,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step that is to run again.", callback=check_text)],
    reason: Reason,
    seen: Seen = None,
    user: User = user_name(),
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Take a process back to an earlier step, with the state of then. Logged with its reason.

    Subscriptions and other systems stay as they are: undo there by hand what the step is to do again.

    Example: orchestrator rewind 3f2a9c41 "Reserve a VLAN" --reason "the VLAN was taken; released it in the IPAM"
    """

    async def act(context: CliContext, session: AsyncSession, process_id: UUID) -> Advanced:
        return await control.rewind(session, process_id, user, step, reason, context.limits, seen=seen)

    _change(process, act, "rewound", as_json=as_json, wait=wait, timeout=timeout)


def note(
    process: Process,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note.", callback=check_text)],
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Note something on a process for others to see; an empty text removes the note.

    Example: orchestrator note 3f2a9c41 "the supplier has a ticket: 4711"
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            process_id = await find_process(session, process)
            written = await notes.set_note(session, process_id, text, user)
        context.output.line(f"process {process_id}: ", "noted" if written else "its note is removed")
        context.output.document({"process_id": process_id, "note": written})

    execute(body, as_json=as_json)


def delete(process: Process, user: User = user_name(), as_json: AsJson = False) -> None:
    """Delete a finished task with its log.

    Who deleted it stays in the table deleted_processes, and what it has done to subscriptions in their history.
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            process_id = await find_process(session, process)
            await notes.delete(session, process_id, user)
        context.output.line(f"task {process_id} deleted")
        context.output.document({"process_id": process_id, "deleted": True})

    execute(body, as_json=as_json)


def _change(
    written: str,
    act: Callable[[CliContext, AsyncSession, UUID], Awaitable[Advanced]],
    done: str,
    *,
    as_json: bool,
    wait: bool = False,
    timeout: float | None = None,
    pages: list[str] | None = None,
) -> None:
    async def body(context: CliContext) -> int | None:
        context.load_workflows()
        async with context.database() as database:
            async with context.publisher() as publisher:
                async with database.transaction() as session:
                    process_id = await find_process(session, written)
                try:
                    message = await context.change(
                        database, publisher, lambda session: act(context, session, process_id)
                    )
                except FormIncompleteError as error:
                    command = f"orchestrator resume {short(process_id)} --seen {error.sequence}"
                    return show_next_page(context.output, error, command, pages or [])
            if wait:
                before = message.entries[0].sequence - 1 if message.entries else message.sequence
                return await follow(
                    context, StoredProcess(context, database, process_id), after=before, patience=timeout
                )
            now = "" if message.status == done else Text.assemble("; it is now ", coloured(message.status))
            context.output.line(f"process {process_id} {done}", now)
            form = None
            if message.status == "suspended":
                form = await read_form(context, database, process_id)
                step = next((one.name for one in reversed(message.entries) if one.kind == "step"), None)
                show_input_request(context.output, process_id, step, message.sequence, form)
            document = {"process_id": process_id, "status": message.status, "sequence": message.sequence, "form": form}
            context.output.document(document)
        return None

    execute(body, as_json=as_json)
