"""Commands that pause the whole engine and let it go on."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.render import engine_document, engine_line
from orchestrator.services.pause import set_paused

Why = Annotated[
    str | None, typer.Option("--reason", help="Why; everybody who asks for the status sees it.", callback=check_text)
]


def pause(reason: Why = None, user: User = user_name(), as_json: AsJson = False) -> None:
    """Stop claiming and dispatching steps, in every program. Running steps finish.

    Example: orchestrator pause --reason "the IMS is upgraded until 11:00"
    """
    _set_paused(True, user, reason, as_json=as_json)


def unpause(reason: Why = None, user: User = user_name(), as_json: AsJson = False) -> None:
    """Continue after a pause."""
    _set_paused(False, user, reason, as_json=as_json)


def _set_paused(paused: bool, user: str, reason: str | None, *, as_json: bool) -> None:
    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            status = await set_paused(session, paused, user, reason)
        context.output.line(engine_line(status))
        context.output.document(engine_document(status))

    execute(body, as_json=as_json)
