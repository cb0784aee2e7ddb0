"""Start a workflow; resume, retry and abort a process."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses, describe_for_form, is_from_browser
from orchestrator.errors import OrchestratorError
from orchestrator.messages import Key, Name
from orchestrator.services import control
from orchestrator.services.start import StartRequest
from orchestrator.text import MAX_REASON
from orchestrator.types import State

router = Router(prefix="/processes", tags=["processes"])

_FORM_RESPONSES: Final[Responses] = {
    400: {"description": "The pages do not fit the form; `validation_errors` names each field."},
    403: {"description": "The user may not do this."},
    404: {"description": "There is no such workflow, process or subscription."},
    409: {"description": "It may not be done now; `reasons` says why."},
    503: {"description": "The engine is paused, or the database is away."},
    510: {"description": "The form has another page: `form` is its JSON schema."},
}

ProcessId = Annotated[UUID, Path(description="The process.")]
IdempotencyKey = Annotated[
    Key | None,
    Header(
        alias="Idempotency-Key",
        description="Makes repeating the request harmless: one process, or one change, for one key.",
    ),
]
Pages = Annotated[
    list[dict[str, Any]],
    Body(description="The pages of the form, in order.", examples=[[{"product": "…uuid…"}, {"node_name": "ams-1"}]]),
]


class StartedProcess(BaseModel):
    """A process that was started; ``created`` is false when an earlier request with the same key has started it."""

    id: UUID
    created: bool


class AbortRequest(BaseModel):
    """Why a process is ended; the body may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(None, max_length=MAX_REASON, description="Goes into the process's log.")


@router.post(
    "/{workflow}",
    status_code=HTTPStatus.CREATED,
    operation_id="start_process",
    response_model=StartedProcess,
    responses={**_FORM_RESPONSES, 412: {"description": "The workflow's run predicate refuses."}},
)
async def start_process(
    request: Request,
    context: Context,
    caller: Annotated[Caller, requires(Role.START)],
    workflow: Annotated[Name, Path(description="The workflow's name.")],
    pages: Pages = [],  # noqa: B006 - never changed, and the document shows it
    key: IdempotencyKey = None,
) -> Response:
    """Start a workflow. Without all pages of its form, the answer is 510 with the next one."""
    try:
        asked = StartRequest(workflow, pages, caller.name, key, caller.sender)
        outcome = await context.starter.start(asked)
    except OrchestratorError as error:
        return describe_for_form(error, from_browser=is_from_browser(request))
    if outcome.message is not None:
        context.notify_started(outcome.message)
    return JSONResponse(
        {"id": str(outcome.process_id), "created": outcome.created},
        HTTPStatus.CREATED,
        {"location": f"{request.scope.get('root_path', '')}/api/processes/{outcome.process_id}"},
    )


@router.put(
    "/{process_id}/resume", status_code=HTTPStatus.NO_CONTENT, operation_id="resume_process", responses=_FORM_RESPONSES
)
async def resume(
    request: Request,
    context: Context,
    caller: Annotated[Caller, requires(Role.START)],
    process_id: ProcessId,
    pages: Annotated[
        list[dict[str, Any]] | dict[str, Any],
        Body(description="The pages of the form that the process waits for; `{}` retries a failed or waiting process."),
    ],
    key: IdempotencyKey = None,
    seen: Annotated[
        int | None,
        Query(
            ge=0,
            description="The newest log entry that the caller knows of: refused with 409 when there is a newer one.",
        ),
    ] = None,
) -> Response:
    """Give a suspended process its input; retry a failed or waiting one."""
    inputs: list[State] = pages if isinstance(pages, list) else [pages] if pages else []
    try:
        await context.change_process(
            process_id,
            lambda session: control.resume(
                session, process_id, inputs, caller.name, context.limits, key=key, seen=seen
            ),
        )
    except OrchestratorError as error:
        return describe_for_form(error, from_browser=is_from_browser(request))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.put(
    "/{process_id}/abort",
    status_code=HTTPStatus.NO_CONTENT,
    operation_id="abort_process",
    responses={404: _FORM_RESPONSES[404], 409: {"description": "The process has ended already."}},
)
async def abort(
    context: Context,
    caller: Annotated[Caller, requires(Role.OPERATE)],
    process_id: ProcessId,
    body: AbortRequest | None = None,
    key: IdempotencyKey = None,
) -> Response:
    """End a process at once. A step that runs at this moment leaves no trace in the database."""
    reason = None if body is None else body.reason
    await context.change(
        lambda session: control.abort(session, process_id, caller.name, context.limits, reason, key=key)
    )
    return Response(status_code=HTTPStatus.NO_CONTENT)
