"""Try out when a schedule would be due: ``orchestrator schedules``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, check_text
from orchestrator.engine.slot_preview import preview_slots
from orchestrator.engine.trigger_input import UNITS, build_trigger, read_time
from orchestrator.engine.triggers import CronTrigger, Trigger
from orchestrator.engine.zones import find_zone

MOST_SLOTS: Final = 1000

_SPAN = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[wdhms])", re.ASCII)
_UNIT_OF = {unit[0]: unit for unit in UNITS}


def next_command(
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron", metavar="EXPRESSION", callback=check_text, help="Minute, hour, day, month, weekday: '0 3 * * *'."
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="SPAN", callback=check_text, help="An interval: 90s, 15m, 6h, 1d, 2w."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", callback=check_text, help="Once; such as 2026-11-25T09:00:00+01:00."),
    ] = None,
    zone: Annotated[
        str,
        typer.Option(
            "--zone", metavar="NAME", callback=check_text, help="The time zone of --cron and of the times shown."
        ),
    ] = "UTC",
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="TIME", callback=check_text, help="The first instant; intervals are counted from it."
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--end", metavar="TIME", callback=check_text, help="The last instant.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="TIME", callback=check_text, show_default="now", help="Show the slots after it."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=MOST_SLOTS, metavar="COUNT", help="The most slots to show.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show when a cron expression, an interval or a date would be due, with what clock changes do to it.

    Neither server is needed. A clock change may move a slot, leave it out or bring its time twice; the remark says so.

    Example: orchestrator schedules next --cron "30 2 * * *" --zone Europe/Amsterdam
    """
    if sum(one is not None for one in (cron, every, at)) != 1:
        raise typer.BadParameter("give one of --cron, --every and --at")
    span = {} if every is None else _read_span(every)

    async def body(context: CliContext) -> None:
        found, now = find_zone(zone), datetime.now(UTC)
        first = now if after is None else read_time("after", after)
        bounds = {"start_date": start, "end_date": end}
        trigger: Trigger
        if cron is not None:
            begin, last = (None if one is None else read_time(name, one) for name, one in bounds.items())
            trigger = CronTrigger(cron, found, begin, last)
        elif every is not None:
            trigger = build_trigger("interval", {**span, **bounds}, zone=found, now=now)
        else:
            trigger = build_trigger("date", {"run_date": at, **bounds}, zone=found, now=now)
        slots = preview_slots(trigger, found, first, count)
        context.output.document(
            {
                "zone": found.key,
                "slots": [{"at": one.at, "local": one.local.isoformat(), "remarks": one.remarks} for one in slots],
            }
        )
        context.output.table(
            (found.key, "UTC", "remark"),
            [
                (f"{one.local:%a %Y-%m-%d %H:%M:%S %z}", f"{one.at:%Y-%m-%d %H:%M:%S}", "; ".join(one.remarks))
                for one in slots
            ],
            prose="remark",
            empty="no slots: it is over, or ends before it begins",
        )

    execute(body, as_json=as_json, needs_settings=False)


def _read_span(written: str) -> dict[str, int]:
    parts = _SPAN.fullmatch(written)
    if parts is None:
        raise typer.BadParameter(
            f"{written!r} is no interval: write a number and w, d, h, m or s, such as 6h", param_hint="--every"
        )
    return {_UNIT_OF[parts["unit"]]: int(parts["number"])}
