"""The AsyncAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.operations.asyncapi import build_document

router = Router(tags=["documents"])


@router.get("/asyncapi.json", operation_id="get_asyncapi_document")
async def show(request: Request, caller: Annotated[Caller, requires(Role.READ)]) -> dict[str, Any]:
    """Return the AsyncAPI 3 document of all messages, with the start of each workflow that this program's code has."""
    del caller
    # Authors' forms are run for it, and what they show before the first page does not change while the program runs.
    state = request.app.state
    if not hasattr(state, "asyncapi"):
        state.asyncapi = await build_document()
    document: dict[str, Any] = state.asyncapi
    return document
