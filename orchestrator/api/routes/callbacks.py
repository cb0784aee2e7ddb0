"""Answers and progress reports of external systems to callback steps, by HTTP instead of a message.

The token in the path is the permission, so that no key is needed: an external system can do this and nothing else.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Path, Request
from starlette.exceptions import HTTPException

from orchestrator.api.bodies import Router
from orchestrator.api.context import ApiContext, Context
from orchestrator.api.problems import Responses
from orchestrator.engine.state import MAX_NESTING, describe_nesting, measure_nesting
from orchestrator.services.callbacks import COMPLETED, FAILED, receive, report_progress

router = Router(prefix="/processes/{process_id}/callback/{token}", tags=["callbacks"])

_RESPONSES: Final[Responses] = {
    404: {"description": "The token is unknown, or that of another process."},
    409: {"description": "The callback was answered before, or was superseded by a retry or an abort."},
    410: {"description": "The callback's deadline has passed."},
}
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "example": {"light": -17.5, "engineer": "ana"}}},
    }
}

ProcessId = Annotated[UUID, Path(description="The process that waits.")]
Token = Annotated[str, Path(max_length=200, description="The token that the job came with.")]


async def _read(request: Request) -> bytes:
    """Return the body, whatever its type is called: devices and scripts send JSON under many names."""
    return check_answer(await request.body())


def check_answer(body: bytes) -> bytes:
    """Return an answer that a state could hold.

    Raises:
        HTTPException: 400, none could. By message, where nobody could answer the sender, it fails the step.
    """
    if (nesting := measure_nesting(body) + 1) > MAX_NESTING:
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body cannot be stored: {describe_nesting(nesting)}")
    return body


Body = Annotated[bytes, Depends(_read)]


@router.post("", operation_id="complete_callback", responses=_RESPONSES, openapi_extra=_BODY)
async def complete(context: Context, process_id: ProcessId, token: Token, body: Body) -> dict[str, str]:
    """Complete the callback: the body becomes the result that the validate step checks."""
    return await answer(context, process_id, token, COMPLETED, body)


@router.post("/failed", operation_id="fail_callback", responses=_RESPONSES, openapi_extra=_BODY)
async def fail(context: Context, process_id: ProcessId, token: Token, body: Body) -> dict[str, str]:
    """Report that the job has failed: the process fails with the text under ``error``."""
    return await answer(context, process_id, token, FAILED, body)


@router.post("/progress", operation_id="report_callback_progress", responses=_RESPONSES, openapi_extra=_BODY)
async def progress(context: Context, process_id: ProcessId, token: Token, body: Body) -> dict[str, str]:
    """Report how far the job is; people see the newest report."""
    async with context.transaction() as session:
        await report_progress(session, token, body, process_id=process_id)
    return {"status": "accepted"}


async def answer(
    context: ApiContext, process_id: UUID, token: str, outcome: str, body: bytes, note: str | None = None
) -> dict[str, str]:
    """Take an answer, and say what has become of it; see :func:`orchestrator.services.callbacks.receive`."""
    async with context.transaction() as session:
        message = await receive(session, token, outcome, body, context.limits, process_id=process_id, note=note)
    if message is not None:
        context.notify(message.process_id, message.workflow)
    return {"status": "accepted" if message is not None else "kept until the step has started waiting"}
