"""Options that say when a schedule is due, for the commands that take them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import typer

from orchestrator.cli.options import check_text
from orchestrator.engine.trigger_input import UNITS, build_trigger, read_time
from orchestrator.engine.triggers import CronTrigger, Trigger
from orchestrator.engine.zones import find_zone

_SPAN = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[wdhms])", re.ASCII)
_UNIT_OF = {unit[0]: unit for unit in UNITS}

Cron = Annotated[
    str | None,
    typer.Option(
        "--cron", metavar="EXPRESSION", callback=check_text, help="Minute, hour, day, month, weekday: '0 3 * * *'."
    ),
]
Every = Annotated[
    str | None,
    typer.Option("--every", metavar="SPAN", callback=check_text, help="An interval: 90s, 15m, 6h, 1d, 2w."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", callback=check_text, help="Once; such as 2026-11-25T09:00:00+01:00."),
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start", metavar="TIME", callback=check_text, help="The first instant; intervals are counted from it."
    ),
]
End = Annotated[str | None, typer.Option("--end", metavar="TIME", callback=check_text, help="The last instant.")]


def read_trigger(
    *, cron: str | None, every: str | None, at: str | None, zone: str, start: str | None, end: str | None, now: datetime
) -> Trigger:
    """Return the trigger that the options describe.

    Args:
        now: where an interval without a start begins.

    Raises:
        typer.BadParameter: not exactly one of cron, every and at is given, or the interval is none.
        InvalidInputError: one cannot be used; the text names the field.
    """
    if sum(one is not None for one in (cron, every, at)) != 1:
        raise typer.BadParameter("give one of --cron, --every and --at")
    bounds = {"start_date": start, "end_date": end}
    if cron is not None:
        first, last = (None if one is None else read_time(name, one) for name, one in bounds.items())
        return CronTrigger(cron, find_zone(zone), first, last)
    if every is not None:
        return build_trigger("interval", {**read_span(every), **bounds}, zone=find_zone(zone), now=now)
    return build_trigger("date", {"run_date": at, **bounds}, zone=find_zone(zone), now=now)


def read_span(written: str, option: str = "--every") -> dict[str, int]:
    """Return an interval by its unit, such as ``{"hours": 6}`` for ``6h``.

    Raises:
        typer.BadParameter: it is none.
    """
    parts = _SPAN.fullmatch(written)
    if parts is None:
        raise typer.BadParameter(
            f"{written!r} is no interval: write a number and w, d, h, m or s, such as 6h", param_hint=option
        )
    return {_UNIT_OF[parts["unit"]]: int(parts["number"])}
