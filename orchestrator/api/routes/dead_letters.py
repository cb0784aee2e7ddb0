"""Messages that could not be used: list, show, replay, discard."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Path, Query, Response
from pydantic import BaseModel

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import RETRY_AFTER, ProblemResponse, Responses
from orchestrator.db.dead_letters import Wanted, count_letters, list_letters, read_letter
from orchestrator.errors import PublishError
from orchestrator.messages import Name
from orchestrator.operations import dead_letters
from orchestrator.operations.dead_letters import letter_document, summary_document

router = Router(prefix="/dead-letters", tags=["dead letters"])

MAX_OFFSET: Final = 1_000_000

_NOT_FOUND: Final[Responses] = {404: {"description": "There is no such dead letter."}}
_CLOSED: Final[Responses] = {
    **_NOT_FOUND,
    409: {"description": "It was replayed or discarded, is being so at this moment, or its message is refused again."},
}

LetterId = Annotated[UUID, Path(description="The dead letter.")]


class DeadLetterSummary(BaseModel):
    """A message that could not be used: why, what it is about, and what its sender has set, under its own names."""

    id: UUID
    died_at: datetime
    reason: str
    queue: str
    exchange: str
    routing_key: str
    process_id: UUID | None
    workflow: str | None
    step: str | None
    message_id: str | None
    correlation_id: str | None
    app_id: str | None
    user_id: str | None
    type: str | None
    timestamp: datetime | None
    content_type: str | None
    reply_to: str | None
    headers: dict[str, Any]
    size: int
    outcome: Literal["replayed", "discarded"] | None
    closed_at: datetime | None
    closed_by: str | None


class DeadLetterDocument(DeadLetterSummary):
    """A message that could not be used, with all properties and the body.

    ``body`` is what ``body_encoding`` says: JSON, text, or Base64 of bytes; the beginning of it if ``is_body_cut``.
    """

    properties: dict[str, Any]
    body: Any
    body_encoding: Literal["json", "text", "base64"]
    is_body_cut: bool


@router.get("", operation_id="list_dead_letters")
async def list_all(
    response: Response,
    context: Context,
    caller: Annotated[Caller, requires(Role.OPERATE)],
    *,
    closed: Annotated[bool, Query(description="Whether to list those that were replayed or discarded, too.")] = False,
    queue: Annotated[Name | None, Query(description="Only letters from this queue.")] = None,
    workflow: Annotated[Name | None, Query(description="Only letters about this workflow.")] = None,
    process_id: Annotated[UUID | None, Query(description="Only letters about this process.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
) -> list[DeadLetterSummary]:
    """List dead letters, the newest first. `Content-Range` says how many there are."""
    del caller
    wanted = Wanted(closed, queue, workflow, process_id)
    async with context.transaction() as session:
        found = await list_letters(session, wanted, limit, offset)
        total = await count_letters(session, wanted)
    response.headers["content-range"] = f"dead_letters {offset}-{offset + max(len(found), 1) - 1}/{total}"
    return [DeadLetterSummary(**summary_document(one)) for one in found]


@router.get("/{letter_id}", operation_id="get_dead_letter", responses=_NOT_FOUND)
async def show(
    context: Context, caller: Annotated[Caller, requires(Role.OPERATE)], letter_id: LetterId
) -> DeadLetterDocument:
    """Show a dead letter with its body. A callback's token is never in it."""
    del caller
    async with context.transaction() as session:
        stored = await read_letter(session, letter_id)
    return DeadLetterDocument(**letter_document(stored))


@router.post(
    "/{letter_id}/replay",
    operation_id="replay_dead_letter",
    response_model=DeadLetterSummary,
    responses={**_CLOSED, 503: {"description": "The broker or the database is away; the letter stays."}},
)
async def replay(
    context: Context, caller: Annotated[Caller, requires(Role.OPERATE)], letter_id: LetterId
) -> DeadLetterSummary | Response:
    """Send the message again to where it was sent, with its message id, and close the letter."""
    try:
        if not context.publisher.is_ready:
            raise PublishError("the broker is away")
        summary = await dead_letters.replay(context.database, context.publisher, letter_id, caller.name, context.limits)
    except PublishError as error:
        return ProblemResponse(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the dead letter stays, because its message could not be published: {error}",
            key="broker.unavailable",
            headers={"retry-after": RETRY_AFTER},
        )
    return DeadLetterSummary(**summary_document(summary))


@router.delete("/{letter_id}", status_code=HTTPStatus.NO_CONTENT, operation_id="discard_dead_letter", responses=_CLOSED)
async def discard(context: Context, caller: Annotated[Caller, requires(Role.OPERATE)], letter_id: LetterId) -> Response:
    """Close a letter whose message is not to be sent again."""
    await dead_letters.discard(context.database, letter_id, caller.name)
    return Response(status_code=HTTPStatus.NO_CONTENT)
