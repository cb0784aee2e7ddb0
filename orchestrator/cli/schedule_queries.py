"""Commands that show schedules: ``orchestrator schedules list | show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, check_text
from orchestrator.cli.output import Output, clean
from orchestrator.cli.render import compact, fields_of, short, when
from orchestrator.cli.schedule_render import schedule_document, state_of, when_next
from orchestrator.db.schedules.rows import StoredChange, StoredSlot, Wanted
from orchestrator.engine.schedule import Origin
from orchestrator.services import schedule_reading
from orchestrator.services.schedule_reading import ListedSchedule, ScheduleState, ShownSchedule, describe_trigger
from orchestrator.services.schedules import find_schedule


def list_command(
    workflow: Annotated[
        str | None, typer.Option(metavar="NAME", callback=check_text, help="Only schedules of this workflow.")
    ] = None,
    origin: Annotated[
        Origin | None, typer.Option("--origin", metavar="ORIGIN", help="Only those of the code, or those of a person.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", metavar="", help="Only those that are enabled, or are not.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", callback=check_text, help="Only those with this in their name.")
    ] = None,
    first: Annotated[int, typer.Option("--skip", min=0, metavar="N", help="Leave out as many at the beginning.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List schedules by name: whether they start anything, when next, and what became of the last slot.

    Example: orchestrator schedules list --workflow validate_ports
    """

    async def body(context: CliContext) -> None:
        wanted = Wanted(workflow, None if origin is None else origin.value, enabled, name)
        async with context.database() as database, database.transaction() as session:
            found = await schedule_reading.list_schedules(session, wanted, first=first, count=limit)
            total = await schedule_reading.count_schedules(session, wanted)
        context.output.document([schedule_document(one) for one in found])
        context.output.table(
            ("id", "name", "workflow", "state", "trigger", "next", "last", "why"),
            [
                (
                    short(one.stored.schedule_id),
                    clean(one.stored.name),
                    clean(one.stored.workflow),
                    state_of(one),
                    describe_trigger(one.stored),
                    "" if one.stored.due_at is None else when(one.stored.due_at),
                    one.stored.last_result or "",
                    _why(one),
                )
                for one in found
            ],
            prose="why",
            empty="no schedules: 'orchestrator schedules add' makes one",
        )
        if total > first + len(found):
            context.output.line((f"{len(found)} of {total}; --limit and --skip show others", "dim"))

    execute(body, as_json=as_json)


def show(
    schedule: Annotated[
        str,
        typer.Argument(
            metavar="SCHEDULE", callback=check_text, help="Its name, or the first 8 or more characters of its id."
        ),
    ],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=1000, metavar="COUNT", help="Slots to come, and of the past.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show a schedule: what it starts and when, the coming slots, what became of the recent ones, and who has changed it."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            schedule_id = await find_schedule(session, schedule, removed=True)
            shown = await schedule_reading.show_schedule(session, schedule_id, coming=count, recent=count)
        context.output.document(
            {
                **schedule_document(shown.listed),
                "coming": [
                    {"at": one.at, "local": one.local.isoformat(), "remarks": one.remarks} for one in shown.coming
                ],
                "slots": [fields_of(one) for one in shown.slots],
                "changes": [fields_of(one) for one in shown.changes],
            }
        )
        _show(context.output, shown)

    execute(body, as_json=as_json)


def _show(output: Output, shown: ShownSchedule) -> None:
    listed = shown.listed
    stored = listed.stored
    policies = f"missed {stored.missed}, overlap {stored.overlap}"
    if stored.missed == "all":
        policies = f"missed all (at most {stored.missed_limit}), overlap {stored.overlap}"
    origin = "a person"
    if stored.origin == Origin.CODE.value:
        origin = f"the code, but for {', '.join(stored.touched)}" if stored.touched else "the code"
    lines = {
        "schedule": f"{stored.schedule_id}  {stored.name}",
        "workflow": stored.workflow,
        "state": f"{listed.state.value}{f': {listed.why}' if listed.why else ''}",
        "trigger": describe_trigger(listed.stored),
        "next": when_next(listed) if listed.state is ScheduleState.ENABLED else "",
        "policies": policies + (f", jitter up to {stored.jitter:g} s" if stored.jitter else ""),
        "owned by": origin,
        "created": f"{when(stored.created_at)} by {stored.created_by}",
        "changed": f"{when(stored.changed_at)} by {stored.changed_by}",
        "note": stored.note or "",
        **{
            f"page {number}": json.dumps(page, ensure_ascii=False) for number, page in enumerate(stored.inputs, start=1)
        },
    }
    for label, text in lines.items():
        if text:
            output.prose((f"{label:<10}", "dim"), clean(text))
    if shown.coming:
        output.line()
        output.table(
            ("coming", "UTC", "remark"),
            [
                (f"{one.local:%a %Y-%m-%d %H:%M:%S %z}", f"{one.at:%Y-%m-%d %H:%M:%S}", "; ".join(one.remarks))
                for one in shown.coming
            ],
            prose="remark",
        )
    if shown.slots:
        output.line()
        output.table(
            ("slot", "result", "slots", "process", "reason"), [_slot(one) for one in shown.slots], prose="reason"
        )
    if shown.changes:
        output.line()
        output.table(("changed", "by", "what", "changes"), [_change(one) for one in shown.changes], prose="changes")


def _slot(slot: StoredSlot) -> tuple[str, str, str, str, str]:
    process = "" if slot.process_id is None else str(slot.process_id)
    return when(slot.slot), slot.result, str(slot.slots), process, clean(slot.reason or "")


def _change(change: StoredChange) -> tuple[str, str, str, str]:
    return when(change.at), clean(change.author), clean(change.action), _changes(change.changes, change.reason)


def _changes(changes: Mapping[str, list[Any]], reason: str | None) -> str:
    found = [f"{name} {compact(old)} → {compact(new)}" for name, (old, new) in changes.items()]
    return clean("; ".join([*([reason] if reason else []), *found]))


def _why(listed: ListedSchedule) -> str:
    """Return why a schedule starts nothing; of one that does, why its last slot did not."""
    if listed.why is not None:
        return clean(listed.why)
    return "" if listed.stored.last_result == "started" else clean(listed.stored.last_reason or "")
