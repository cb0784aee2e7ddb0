"""Dead letters: messages that could not be used. Read them, send one again, or discard it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Path
from starlette.responses import Response

from orchestrator.api.ui import listing
from orchestrator.api.ui.listing import First, Text
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.db.dead_letters import Wanted, count_letters, list_letters, read_letter
from orchestrator.db.lists.request import require_text
from orchestrator.errors import ConflictError, InvalidInputError, InvalidQueryError, PublishError
from orchestrator.operations import dead_letters
from orchestrator.operations.dead_letters import letter_document, summary_document

router = PageRouter()

Operator = Annotated[Page, visit(Role.OPERATE)]
LetterId = Annotated[UUID, Path()]


@router.get("/dead-letters")
async def list_all(
    page: Operator, queue: Text = "", workflow: Text = "", closed: Text = "", process_id: Text = "", first: First = 0
) -> Response:
    """Show the dead letters that fit, the newest first."""
    words, found, total = "", [], 0
    try:
        require_text(queue, workflow)
        process = UUID(process_id) if process_id.strip() else None
    except InvalidQueryError as error:
        words = str(error)
    except ValueError:
        words = "the id of a process is given whole"
    else:
        wanted = Wanted(closed == "yes", queue.strip() or None, workflow.strip() or None, process)
        async with page.context.transaction() as session:
            found = [summary_document(one) for one in await list_letters(session, wanted, listing.ROWS, first)]
            total = await count_letters(session, wanted)
    shown = {"queue": queue, "workflow": workflow, "process_id": process_id, "closed": closed}
    return await page.render(
        "dead_letters.html",
        found=found,
        total=total,
        first=first,
        words=words,
        shown=shown,
        link=listing.linker(page, "/dead-letters", **shown),
        count=listing.ROWS,
    )


@router.get("/dead-letters/{letter_id}")
async def show(page: Operator, letter_id: LetterId) -> Response:
    """Show a dead letter with its body. A callback's token is never in it."""
    async with page.context.transaction() as session:
        stored = await read_letter(session, letter_id)
    return await page.render("dead_letter.html", one=letter_document(stored))


@router.post("/dead-letters/{letter_id}/replay")
async def replay(page: Operator, letter_id: LetterId) -> Response:
    """Send the message again to where it was sent."""
    context = page.context
    try:
        if not context.publisher.is_ready:
            raise PublishError("the broker is away")
        await dead_letters.replay(context.database, context.publisher, letter_id, page.user, context.limits)
    except PublishError as error:
        raise ConflictError(f"the dead letter stays, because its message could not be published: {error}") from error
    return page.go(f"/dead-letters/{letter_id}")


@router.post("/dead-letters/{letter_id}/discard")
async def discard(page: Operator, letter_id: LetterId) -> Response:
    """Close a letter whose message is not to be sent again."""
    if (await page.form()).get("sure") != "yes":
        raise InvalidInputError("tick the box first: a message that is discarded is not sent again")
    await dead_letters.discard(page.context.database, letter_id, page.user)
    return page.go(f"/dead-letters/{letter_id}")
