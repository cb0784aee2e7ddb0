"""Commands about messages that could not be used: ``orchestrator dead-letters …``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.cli.context import REFUSED, CliContext, execute, explain
from orchestrator.cli.options import AsJson, User, check_text, user_name
from orchestrator.cli.output import clean
from orchestrator.cli.render import short, when
from orchestrator.db.dead_letters import (
    LetterSummary,
    Wanted,
    count_letters,
    list_letters,
    list_oldest_first,
    read_letter,
)
from orchestrator.db.lookup import find_dead_letter, find_process
from orchestrator.db.session import Database
from orchestrator.errors import OrchestratorError, PublishError
from orchestrator.operations import dead_letters
from orchestrator.operations.dead_letters import letter_document, summary_document

MAX_REASON = 160
"""Characters of a reason in a list."""

Letters = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="The letters; the first 8 or more characters will do.")
]
Every = Annotated[
    bool, typer.Option("--all", metavar="", help="All open letters that the other options leave, the oldest first.")
]
Queue = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", callback=check_text, help="Only letters from this queue, such as orchestrator.commands."
    ),
]
Workflow = Annotated[
    str | None, typer.Option(metavar="NAME", callback=check_text, help="Only letters about this workflow.")
]
OfProcess = Annotated[
    str | None, typer.Option("--process", metavar="ID", callback=check_text, help="Only letters about this process.")
]


def list_command(
    queue: Queue = None,
    workflow: Workflow = None,
    process: OfProcess = None,
    closed: Annotated[
        bool, typer.Option("--closed", metavar="", help="Show those that were replayed or discarded, too.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List messages that could not be used, the newest first.

    Example: orchestrator dead-letters list --queue orchestrator.commands
    """

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            process_id = None if process is None else await find_process(session, process)
            wanted = Wanted(closed, queue, workflow, process_id)
            found = await list_letters(session, wanted, limit)
            total = await count_letters(session, wanted)
        context.output.document([summary_document(one) for one in found])
        context.output.table(
            ("id", "died", "key", "workflow", "process", "from", *(("outcome",) if closed else ()), "reason"),
            [
                (
                    str(one.letter_id),
                    when(one.died_at),
                    clean(one.routing_key),
                    clean(one.workflow or ""),
                    "" if one.process_id is None else short(one.process_id),
                    _sender(one),
                    *((_outcome(one),) if closed else ()),
                    clean(one.reason, limit=MAX_REASON),
                )
                for one in found
            ],
            prose="reason",
            empty="no dead letters",
        )
        if total > len(found):
            context.output.line((f"the newest {limit} of {total}; --limit shows more", "dim"))

    execute(body, as_json=as_json)


def show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The letter; its first 8 or more characters will do.")],
    as_json: AsJson = False,
) -> None:
    """Show a message that could not be used: why, what its sender has set, and its body."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            stored = await read_letter(session, await find_dead_letter(session, letter))
        document = letter_document(stored)
        context.output.document(document)
        skipped = {"body", "body_encoding", "is_body_cut", "properties", "headers"}
        fields = {name: value for name, value in document.items() if name not in skipped and value is not None}
        headers = {f"header {name}": value for name, value in document["headers"].items()}
        for name, value in (fields | headers).items():
            context.output.prose((f"{clean(name)} ", "dim"), clean(value))
        context.output.line()
        text = document["body"]
        if document["body_encoding"] == "json":
            text = json.dumps(text, indent=2, ensure_ascii=False)
        context.output.line(clean(text, lines=True))
        if document["is_body_cut"]:
            context.output.line(("the beginning of the body; a replay sends all of it", "dim"))

    execute(body, as_json=as_json)


def replay(
    letters: Letters = None,
    every: Every = False,
    queue: Queue = None,
    workflow: Workflow = None,
    process: OfProcess = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Send messages again to where they were sent, with the same message id, once their cause is fixed.

    Example: orchestrator dead-letters replay 3f2a9c41
    """
    chosen = _Chosen(letters, every, Wanted(queue=queue, workflow=workflow), process)

    async def body(context: CliContext) -> int | None:
        # The answer of a callback is decided by its workflow.
        context.load_workflows()
        async with context.database() as database, context.publisher() as publisher:
            act = partial(dead_letters.replay, database, publisher, user=user, limits=context.limits)
            return await _for_each(context, database, chosen, act)

    execute(body, as_json=as_json)


def discard(
    letters: Letters = None,
    every: Every = False,
    queue: Queue = None,
    workflow: Workflow = None,
    process: OfProcess = None,
    user: User = user_name(),
    as_json: AsJson = False,
) -> None:
    """Close messages that are not to be sent again. They are deleted after 30 days.

    Example: orchestrator dead-letters discard --all --workflow create_port
    """
    chosen = _Chosen(letters, every, Wanted(queue=queue, workflow=workflow), process)

    async def body(context: CliContext) -> int | None:
        async with context.database() as database:
            return await _for_each(context, database, chosen, partial(dead_letters.discard, database, user=user))

    execute(body, as_json=as_json)


@dataclass(frozen=True)
class _Chosen:
    """Which letters a command is about: those with these ids, or all that fit."""

    ids: Sequence[str] | None
    every: bool
    wanted: Wanted
    process: str | None

    async def find(self, session: AsyncSession) -> list[UUID]:
        """Return the ids of the letters, the oldest first if all are meant."""
        wanted = self.wanted
        if self.process is not None:
            wanted = replace(wanted, process_id=await find_process(session, self.process))
        if self.every:
            return list(await list_oldest_first(session, wanted))
        return [await find_dead_letter(session, one) for one in self.ids or ()]


async def _for_each(
    context: CliContext, database: Database, chosen: _Chosen, act: Callable[[UUID], Awaitable[LetterSummary]]
) -> int | None:
    """Act on each letter; go on after one that is refused, and stop when the broker is away."""
    if bool(chosen.ids) == chosen.every:
        raise typer.BadParameter("give the ids of letters, or --all")
    async with database.transaction() as session:
        ids = await chosen.find(session)
    done: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for letter_id in ids:
        try:
            summary = await act(letter_id)
        except PublishError:
            context.output.complain(f"{len(done)} of {len(ids)} done")
            raise
        except OrchestratorError as error:
            lines = explain(error) or [str(error)]
            context.output.complain(f"{letter_id}: {lines[0]}")
            refused.append({"id": str(letter_id), "error": type(error).__name__, "detail": lines[0]})
        else:
            done.append(summary_document(summary))
            context.output.line(f"{letter_id} {summary.outcome}")
    if not ids:
        context.output.line(("no dead letters", "dim"))
    context.output.document({"done": done, "refused": refused})
    return REFUSED if refused else None


def _sender(one: LetterSummary) -> str:
    return clean(one.properties.get("app_id") or one.properties.get("user_id") or "")


def _outcome(one: LetterSummary) -> str:
    return clean("open" if one.outcome is None else f"{one.outcome} by {one.closed_by}")
