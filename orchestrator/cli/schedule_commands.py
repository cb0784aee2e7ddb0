"""Commands that change schedules: ``orchestrator schedules add | edit | pause | resume | remove | run | reset``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.forms import quote, show_next_page
from orchestrator.cli.options import AsJson, Pages, Timeout, User, Wait, check_text, read_pages, user_name
from orchestrator.cli.output import clean
from orchestrator.cli.render import short
from orchestrator.cli.schedule_render import schedule_document, when_next
from orchestrator.cli.stored import StoredProcess
from orchestrator.cli.trigger_options import At, Cron, End, Every, Start, Times, read_span
from orchestrator.cli.watch import follow
from orchestrator.db.schedules.rows import StoredSchedule
from orchestrator.engine.schedule import MISSED_LIMIT, Missed, Overlap, ScheduleDefinition, read_trigger
from orchestrator.errors import FormIncompleteError
from orchestrator.services import schedules
from orchestrator.services.schedule_reading import describe, show_schedule
from orchestrator.services.schedules import ScheduleChanges

Named = Annotated[
    str,
    typer.Argument(
        metavar="SCHEDULE", callback=check_text, help="Its name, or the first 8 or more characters of its id."
    ),
]
Zone = Annotated[
    str | None,
    typer.Option("--zone", metavar="NAME", callback=check_text, help="The time zone of --cron; UTC without it."),
]
MissedOption = Annotated[
    Missed | None,
    typer.Option(
        "--missed",
        metavar="POLICY",
        help="Slots at which no coordinator ran: skip them, start the newest once, or all.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--missed-limit", min=1, metavar="N", help="How many '--missed all' starts, the newest ones."),
]
OverlapOption = Annotated[
    Overlap | None,
    typer.Option(
        "--overlap",
        metavar="POLICY",
        help="A slot while an earlier process runs: allow it, skip it, or queue the newest until that one has ended.",
    ),
]
Jitter = Annotated[
    str | None,
    typer.Option(
        "--jitter",
        metavar="SPAN",
        callback=check_text,
        help="Start late by up to this, such as 5m; each slot by its own.",
    ),
]
Note = Annotated[
    str | None, typer.Option("--note", metavar="TEXT", callback=check_text, help="For people; empty for none.")
]


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", callback=check_text, help="What it is known by.")],
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", callback=check_text, help="The workflow's name.")],
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    zone: Zone = None,
    start: Start = None,
    end: End = None,
    pages: Pages = None,
    missed: MissedOption = None,
    missed_limit: Limit = None,
    overlap: OverlapOption = None,
    jitter: Jitter = None,
    note: Note = None,
    disabled: Annotated[
        bool, typer.Option("--disabled", metavar="", help="It starts nothing until it is resumed.")
    ] = False,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Make a schedule: a workflow starts by itself. Give one of --cron, --every and --at.

    Without the workflow's form filled in, the next page's fields are shown and nothing is stored.

    Example: orchestrator schedules add nightly validate_ports --cron "30 2 * * *" --zone Europe/Amsterdam
    """
    inputs = read_pages(pages)
    times = Times(cron, every, at, zone, start, end).check(required=True)
    wait = _read_jitter(jitter)
    now = datetime.now(UTC)

    async def body(context: CliContext) -> int | None:
        definition = ScheduleDefinition(
            name,
            workflow,
            times.build(now),
            tuple(inputs),
            enabled=not disabled,
            missed=missed or Missed.ONCE,
            missed_limit=missed_limit or MISSED_LIMIT,
            overlap=overlap or Overlap.SKIP,
            jitter=wait or timedelta(0),
            note=note,
        )
        context.load_workflows()
        try:
            async with context.database() as database, database.transaction() as session:
                stored = await schedules.add_schedule(session, definition, user, context.limits)
        except FormIncompleteError as error:
            options = {
                "cron": cron,
                "every": every,
                "at": at,
                "zone": zone,
                "start": start,
                "end": end,
                "missed": missed,
                "missed-limit": missed_limit,
                "overlap": overlap,
                "jitter": jitter,
                "note": note,
            }
            given = "".join(f" --{option} {quote(str(one))}" for option, one in options.items() if one is not None)
            command = f"orchestrator schedules add {quote(name)} {quote(workflow)}{given}{' --disabled' * disabled}"
            return show_next_page(context.output, error, command, pages or [])
        _report(context, stored, "added")
        return None

    execute(body, as_json=as_json)


def edit(
    schedule: Named,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    zone: Zone = None,
    start: Start = None,
    end: End = None,
    pages: Pages = None,
    missed: MissedOption = None,
    missed_limit: Limit = None,
    overlap: OverlapOption = None,
    jitter: Jitter = None,
    note: Note = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Change what is given about a schedule; the rest stays. --input replaces all pages.

    With --cron, --every or --at the trigger is a new one, without the bounds of the old one. Alone, --zone, --start and --end
    change the present one.

    Example: orchestrator schedules edit nightly --zone Europe/Berlin --note "asked for by the NOC"
    """
    times = Times(cron, every, at, zone, start, end).check(required=False)
    inputs = None if pages is None else read_pages(pages)
    wait = _read_jitter(jitter)
    now = datetime.now(UTC)
    changes = ScheduleChanges()
    if inputs is not None:
        changes["inputs"] = inputs
    if missed is not None:
        changes["missed"] = missed
    if missed_limit is not None:
        changes["missed_limit"] = missed_limit
    if overlap is not None:
        changes["overlap"] = overlap
    if wait is not None:
        changes["jitter"] = wait
    if note is not None:
        changes["note"] = note or None
    if not changes and not times.is_given:
        raise typer.BadParameter("nothing to do: give what is to be changed")

    async def act(context: CliContext, session: AsyncSession, schedule_id: UUID) -> StoredSchedule:
        wanted = changes
        if times.is_given:
            stored = (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored
            trigger = times.build(now) if times.is_new else times.change(read_trigger(stored.trigger))
            wanted = {**changes, "trigger": trigger}
        return await schedules.edit_schedule(session, schedule_id, wanted, user, context.limits)

    _change(schedule, act, "changed", as_json=as_json, needs_code=inputs is not None, pages=pages)


def pause(
    schedule: Named,
    reason: Annotated[str | None, typer.Option(help="Why; 'list' shows it.", callback=check_text)] = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Stop a schedule from starting anything. A slot that is queued does not start."""

    async def act(_: CliContext, session: AsyncSession, schedule_id: UUID) -> StoredSchedule:
        return await schedules.pause_schedule(session, schedule_id, user, reason)

    _change(schedule, act, "paused", as_json=as_json)


def resume(schedule: Named, user: User = user_name(), as_json: AsJson = False) -> None:
    """Let a schedule start processes again, from its next slot on. What lies in between is not made up for."""

    async def act(_: CliContext, session: AsyncSession, schedule_id: UUID) -> StoredSchedule:
        return await schedules.resume_schedule(session, schedule_id, user)

    _change(schedule, act, "resumed", as_json=as_json)


def remove(schedule: Named, user: User = user_name(), as_json: AsJson = False) -> None:
    """Remove a schedule. One that the code declares does not come back, until 'reset' or 'add' brings it back."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            schedule_id = await schedules.find_schedule(session, schedule)
            await schedules.remove_schedule(session, schedule_id, user)
        context.output.line(f"schedule '{clean(schedule)}' removed")
        context.output.document({"schedule_id": schedule_id, "removed": True})

    execute(body, as_json=as_json)


def reset(schedule: Named, user: User = user_name(), as_json: AsJson = False) -> None:
    """Make a schedule what the code declares again: in all fields, and also when it was removed."""

    async def act(_: CliContext, session: AsyncSession, schedule_id: UUID) -> StoredSchedule:
        return await schedules.reset_schedule(session, schedule_id, user)

    _change(schedule, act, "is what the code declares", as_json=as_json, removed=True)


def run(
    schedule: Named,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            callback=check_text,
            help="Makes repeating the command harmless: one process for one key.",
        ),
    ] = None,
    user: User = user_name(),
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Start the workflow of a schedule now, also while it is paused. Its slots stay as they are.

    Example: orchestrator schedules run nightly --wait
    """
    if key is not None and not 0 < len(key) <= 255:  # noqa: PLR2004 - as in messages
        raise typer.BadParameter("an idempotency key has 1 to 255 characters", param_hint="--key")

    async def body(context: CliContext) -> int | None:
        context.load_workflows()
        async with context.database() as database:
            async with context.publisher() as publisher:
                async with database.transaction() as session:
                    schedule_id = await schedules.find_schedule(session, schedule)
                    outcome = await schedules.run_schedule(session, schedule_id, user, context.limits, key)
                if outcome.message is not None:
                    await context.notify(publisher, outcome.process_id, outcome.message.workflow)
            done = "started" if outcome.created else "was started before with this key"
            context.output.line(f"process {outcome.process_id} {done}")
            if wait:
                stored = StoredProcess(context, database, outcome.process_id)
                return await follow(context, stored, patience=timeout, created=outcome.created)
            context.output.line((f"follow it: orchestrator watch {short(outcome.process_id)}", "dim"))
            context.output.document({"process_id": outcome.process_id, "created": outcome.created})
        return None

    execute(body, as_json=as_json)


def _change(
    written: str,
    act: Callable[[CliContext, AsyncSession, UUID], Awaitable[StoredSchedule]],
    done: str,
    *,
    as_json: bool,
    needs_code: bool = False,
    removed: bool = False,
    pages: list[str] | None = None,
) -> None:
    async def body(context: CliContext) -> int | None:
        if needs_code:
            context.load_workflows()
        try:
            async with context.database() as database, database.transaction() as session:
                schedule_id = await schedules.find_schedule(session, written, removed=removed)
                stored = await act(context, session, schedule_id)
        except FormIncompleteError as error:
            command = f"orchestrator schedules edit {quote(written)}"
            return show_next_page(context.output, error, command, pages or [])
        _report(context, stored, done)
        return None

    execute(body, as_json=as_json)


def _report(context: CliContext, stored: StoredSchedule, done: str) -> None:
    listed = describe(stored)
    context.output.line(f"schedule '{clean(stored.name)}' {done}; {when_next(listed)}")
    context.output.document(schedule_document(listed))


def _read_jitter(written: str | None) -> timedelta | None:
    if written is None:
        return None
    return timedelta() if written == "0" else timedelta(**read_span(written, "--jitter"))
