"""Options that say when a schedule is due, for the commands that take them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Annotated, Any

import typer

from orchestrator.cli.options import check_text
from orchestrator.engine.trigger_input import UNITS, build_trigger, read_time
from orchestrator.engine.triggers import CronTrigger, Trigger
from orchestrator.engine.zones import find_zone, invalid

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


@dataclass(frozen=True, slots=True)
class Times:
    """What the options say about when a schedule is due, as it was written; ``None`` for what is not given."""

    cron: str | None
    every: str | None
    at: str | None
    zone: str | None
    start: str | None
    end: str | None

    @property
    def is_given(self) -> bool:
        """Return whether any of them is given."""
        return any(one is not None for one in (self.zone, self.start, self.end)) or bool(self._kinds)

    @property
    def is_new(self) -> bool:
        """Return whether they make a trigger of their own, rather than change one."""
        return bool(self._kinds)

    @property
    def _kinds(self) -> list[str]:
        return [one for one in (self.cron, self.every, self.at) if one is not None]

    def check(self, *, required: bool) -> Times:
        """Check that they go together; return them.

        Args:
            required: whether there must be a trigger.

        Raises:
            typer.BadParameter: there are several triggers, or none, or an interval that is none.
        """
        if len(self._kinds) > 1 or (required and not self._kinds):
            raise typer.BadParameter("give one of --cron, --every and --at")
        if self.every is not None:
            read_span(self.every)
        return self

    def build(self, now: datetime) -> Trigger:
        """Return the trigger.

        Args:
            now: where an interval without a start begins.

        Raises:
            InvalidInputError: it cannot be used; the text names the field.
        """
        zone = find_zone(self.zone or "UTC")
        bounds = {"start_date": self.start, "end_date": self.end}
        if self.cron is not None:
            first, last = (None if one is None else read_time(name, one) for name, one in bounds.items())
            return CronTrigger(self.cron, zone, first, last)
        if self.every is not None:
            return build_trigger("interval", {**read_span(self.every), **bounds}, zone=zone, now=now)
        return build_trigger("date", {"run_date": self.at, **bounds}, zone=zone, now=now)

    def change(self, trigger: Trigger) -> Trigger:
        """Return another trigger with the zone and the bounds that are given.

        Raises:
            InvalidInputError: one cannot be used, or the trigger has no such thing; the text names the field.
        """
        changes: dict[str, Any] = {} if self.zone is None else {"zone": find_zone(self.zone)}
        for name, written in (("start", self.start), ("end", self.end)):
            if written is not None:
                changes[name] = read_time(name, written)
        known = {one.name for one in fields(trigger)}
        for name in changes:
            if name not in known:
                raise invalid(name, getattr(self, name), "is not what this trigger has")
        return replace(trigger, **changes)


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
