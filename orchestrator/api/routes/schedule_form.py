"""The form by which people make a schedule, page by page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Body, Request
from starlette.responses import Response

from orchestrator.api.answers import answer_document
from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.problems import Responses, describe_for_form, is_from_browser
from orchestrator.errors import OrchestratorError
from orchestrator.services.schedule_form import fill_schedule_form

router = Router(prefix="/forms", tags=["schedules"])

_RESPONSES: Final[Responses] = {
    200: {
        "description": "The form is complete: the body of the request that makes the schedule, `POST /api/schedules/`."
    },
    400: {"description": "The pages do not fit the form; `validation_errors` names each field."},
    403: {"description": "The user may not start this task."},
    510: {"description": "The form has another page: `form` is its JSON schema."},
}


@router.post(
    "/configure_schedule", operation_id="configure_schedule", response_model=dict[str, Any], responses=_RESPONSES
)
async def configure_schedule(
    request: Request,
    context: Context,
    caller: Annotated[Caller, requires(Role.START)],
    pages: Annotated[
        list[dict[str, Any]],
        Body(description="The pages so far, in order.", examples=[[{"task": "3f2a9c41-5b7e-4c1d-9f2a-8e6d4b3c2a10"}]]),
    ] = [],  # noqa: B006 - never changed, and the document shows it
) -> Response:
    """Ask for a schedule: the task, its own pages, when it runs. Nothing is stored; the last answer is what is then posted."""
    try:
        # Whose form it is, the first page says.
        task = str(pages[0].get("task")) if pages else ""
        body = await context.run_author_code(
            task, lambda session: fill_schedule_form(session, pages, caller.name, datetime.now(UTC))
        )
    except OrchestratorError as error:
        return describe_for_form(error, from_browser=is_from_browser(request))
    return await answer_document(body)
