"""Try out when a schedule would be due: ``orchestrator schedules next``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, check_text
from orchestrator.cli.trigger_options import At, Cron, End, Every, Start, Times
from orchestrator.engine.slot_preview import preview_slots
from orchestrator.engine.trigger_input import read_time
from orchestrator.engine.zones import find_zone

MOST_SLOTS: Final = 1000


def next_command(
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    zone: Annotated[
        str,
        typer.Option(
            "--zone", metavar="NAME", callback=check_text, help="The time zone of --cron and of the times shown."
        ),
    ] = "UTC",
    start: Start = None,
    end: End = None,
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
    now = datetime.now(UTC)
    times = Times(cron, every, at, zone, start, end).check(required=True)

    async def body(context: CliContext) -> None:
        found = find_zone(zone)
        first = now if after is None else read_time("after", after)
        trigger = times.build(now)
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
