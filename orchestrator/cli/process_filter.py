"""Options by which an operator says which processes are meant: of the list, and of what is done to many at once."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from orchestrator.cli.options import check_text
from orchestrator.types import ProcessStatus

_SPAN = re.compile(r"(\d{1,6})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_ID = re.compile(r"[0-9a-f]{4,32}")


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


def read_id(written: str | None) -> str | None:
    """Read an id, or its first characters: its digits, without hyphens.

    Raises:
        typer.BadParameter: it is no such thing.
    """
    if written is None:
        return None
    digits = written.lower().replace("-", "")
    if _ID.fullmatch(digits) is None:
        raise typer.BadParameter(f"{written!r} is not the id of a subscription, nor its first four or more characters")
    return digits


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
Subscription = Annotated[
    str | None,
    typer.Option("--subscription", metavar="ID", help="Only processes that have touched this subscription."),
]
Customer = Annotated[
    str | None,
    typer.Option(
        "--customer", metavar="ID", callback=check_text, help="Only processes that have touched one of this customer."
    ),
]
Assignee = Annotated[
    str | None,
    typer.Option("--assignee", metavar="NAME", callback=check_text, help="Only processes that wait for this group."),
]
