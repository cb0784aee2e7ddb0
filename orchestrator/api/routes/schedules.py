"""Make, change and remove schedules, and look at them.

The paths of the field's user interface name the schedule in the body; those for programs, in the path.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path, Query, Request
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import JSONResponse, Response

from orchestrator.api.answers import IfNoneMatch, answer_document, answer_unless_known
from orchestrator.api.bodies import JsonRoute, Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.lists import LIST_RESPONSES, Asked, answer_page
from orchestrator.api.problems import Responses, describe
from orchestrator.api.routes.process_commands import IdempotencyKey, StartedProcess
from orchestrator.api.schedule_bodies import (
    PauseReason,
    ScheduleChange,
    ScheduleCreation,
    ScheduleRemoval,
    ScheduleUpdate,
)
from orchestrator.api.schedule_document import ScheduleDocument, ScheduleItem, write_document, write_item
from orchestrator.db.lists.page import Page
from orchestrator.db.lists.schedules import page_schedules
from orchestrator.db.session import read_time
from orchestrator.db.workflows import find_workflow_name
from orchestrator.errors import ConflictError, FormIncompleteError, InvalidInputError, NotFoundError
from orchestrator.services import schedules
from orchestrator.services.schedule_reading import COMING, ScheduleState, show_schedule
from orchestrator.services.schedule_reading import describe as describe_schedule


class _ScheduleRoute(JsonRoute):
    """A path at which a trigger or a page that cannot be used is answered like any other wrong field of a body: with 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with this answer."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except FormIncompleteError:
                raise
            except InvalidInputError as error:
                return describe(error, HTTPStatus.UNPROCESSABLE_ENTITY)

        return answer


router = Router(prefix="/schedules", tags=["schedules"], route_class=_ScheduleRoute)

_NOT_FOUND: Final[Responses] = {404: {"description": "There is no such schedule, or workflow."}}
_INVALID: Final[Responses] = {
    422: {"description": "A field cannot be used, or the pages do not fit the workflow's form: `validation_errors`."},
    510: {"description": "The workflow's form has another page: `form` is its JSON schema. Nothing was stored."},
}
_TAKEN: Final[Responses] = {
    409: {"description": "There is a schedule of this name, or the change is none that can be made."}
}

Reader = Annotated[Caller, requires(Role.READ)]
Starter = Annotated[Caller, requires(Role.START)]
Operator = Annotated[Caller, requires(Role.OPERATE)]
ScheduleId = Annotated[UUID, Path(description="The schedule.")]


@router.get("", include_in_schema=False)
@router.get("/", operation_id="list_schedules", response_model=list[ScheduleItem], responses=LIST_RESPONSES)
async def list_all(context: Context, caller: Reader, asked: Asked, if_none_match: IfNoneMatch = None) -> Response:
    """List schedules by their names unless `sort` says otherwise, each with its next slot and what became of the last one."""
    del caller
    async with context.transaction() as session:
        page = await page_schedules(session, asked)
    shown = Page([write_item(describe_schedule(one)) for one in page.rows], page.first, page.total)
    return await answer_page(shown, "schedules", if_none_match)


@router.post("", include_in_schema=False, status_code=HTTPStatus.CREATED)
@router.post(
    "/",
    status_code=HTTPStatus.CREATED,
    operation_id="create_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, **_TAKEN, **_INVALID},
)
async def create(request: Request, context: Context, caller: Starter, body: ScheduleCreation) -> Response:
    """Make a schedule. Its first slot is after now, also when its start is in the past: nothing is made up for."""
    async with context.transaction() as session:
        workflow = await _name_workflow(session, body.workflow_id, body.workflow_name)

    async def add(session: AsyncSession) -> tuple[UUID, bytes]:
        definition = body.define(workflow, await read_time(session))
        stored = await schedules.add_schedule(session, definition, caller.name, context.limits)
        return stored.schedule_id, await _read(session, stored.schedule_id)

    schedule_id, document = await context.run_author_code(workflow, add)
    location = f"{request.scope.get('root_path', '')}/api/schedules/{schedule_id}"
    return _answer(document, HTTPStatus.CREATED, {"location": location})


@router.put("", include_in_schema=False)
@router.put(
    "/",
    operation_id="update_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, **_TAKEN, **_INVALID},
)
async def update(context: Context, caller: Operator, body: ScheduleUpdate) -> Response:
    """Change a schedule that the body names."""
    return await _change(context, caller, body.schedule_id, body)


@router.delete("", include_in_schema=False)
@router.delete("/", operation_id="delete_schedule", response_model=dict[str, Any], responses=_NOT_FOUND)
async def delete(context: Context, caller: Operator, body: ScheduleRemoval) -> Response:
    """Remove a schedule that the body names."""
    async with context.transaction() as session:
        stored = (await show_schedule(session, body.schedule_id, coming=0, recent=0)).listed.stored
        if body.workflow_id not in {None, stored.workflow_id}:
            raise NotFoundError(f"the schedule {stored.name!r} is not one of the workflow {body.workflow_id}")
        await schedules.remove_schedule(session, body.schedule_id, caller.name)
    return await answer_document({"id": body.schedule_id})


@router.get(
    "/{schedule_id}",
    operation_id="show_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, 304: {"description": "Nothing of it has changed."}},
)
async def show(
    context: Context,
    caller: Reader,
    schedule_id: ScheduleId,
    count: Annotated[int, Query(ge=0, le=1000, description="How many slots to come to show.")] = COMING,
    removed: Annotated[bool, Query(description="Whether one that was removed is shown, too.")] = False,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Show a schedule with its next slots, what became of the newest ones, and what was done to it."""
    del caller
    async with context.transaction() as session:
        shown = await show_schedule(session, schedule_id, coming=count)
    if shown.listed.state is ScheduleState.REMOVED and not removed:
        raise NotFoundError(f"the schedule {shown.listed.stored.name!r} was {shown.listed.why}: removed=true shows it")
    return answer_unless_known(to_json(write_document(shown)), if_none_match)


@router.put(
    "/{schedule_id}",
    operation_id="replace_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, **_TAKEN, **_INVALID},
)
async def replace(context: Context, caller: Operator, schedule_id: ScheduleId, body: ScheduleCreation) -> Response:
    """Make a schedule what the body says, in all fields. Name and workflow must be those that it has."""
    async with context.transaction() as session:
        workflow = await _name_workflow(session, body.workflow_id, body.workflow_name)
        stored = (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored
    if (body.name, workflow) != (stored.name, stored.workflow):
        raise ConflictError(
            f"the schedule {stored.name!r} keeps its name and its workflow, {stored.workflow!r}: make another one instead"
        )
    same = {"scheduled_type", "name", "workflow_id", "workflow_name"}
    return await _change(context, caller, schedule_id, ScheduleChange(**body.model_dump(exclude=same)))


@router.patch(
    "/{schedule_id}",
    operation_id="change_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, **_TAKEN, **_INVALID},
)
async def change(context: Context, caller: Operator, schedule_id: ScheduleId, body: ScheduleChange) -> Response:
    """Change some fields of a schedule. A slot that is being started at this moment is of the old or of the new one, wholly."""
    return await _change(context, caller, schedule_id, body)


@router.delete(
    "/{schedule_id}", status_code=HTTPStatus.NO_CONTENT, operation_id="remove_schedule", responses=_NOT_FOUND
)
async def remove(context: Context, caller: Operator, schedule_id: ScheduleId) -> Response:
    """Remove a schedule. One that code declares stays removed."""
    async with context.transaction() as session:
        await schedules.remove_schedule(session, schedule_id, caller.name)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/{schedule_id}/run",
    status_code=HTTPStatus.CREATED,
    operation_id="run_schedule",
    response_model=StartedProcess,
    responses={
        **_NOT_FOUND,
        409: {"description": "It may not be started now: `reasons`."},
        412: {"description": "The workflow's run predicate refuses."},
        422: {"description": "Its pages do not fit the workflow's form any more."},
    },
)
async def run(
    request: Request, context: Context, caller: Starter, schedule_id: ScheduleId, key: IdempotencyKey = None
) -> Response:
    """Start a schedule's workflow now, also while the schedule is paused. Its slots stay as they are."""
    workflow = await _find_workflow(context, schedule_id)
    outcome = await context.run_author_code(
        workflow,
        lambda session: schedules.run_schedule(session, schedule_id, caller.name, context.limits, key, caller.sender),
    )
    if outcome.message is not None:
        context.notify_started(outcome.message)
    return JSONResponse(
        {"id": str(outcome.process_id), "created": outcome.created},
        HTTPStatus.CREATED,
        {"location": f"{request.scope.get('root_path', '')}/api/processes/{outcome.process_id}"},
    )


@router.post(
    "/{schedule_id}/pause", operation_id="pause_schedule", response_model=ScheduleDocument, responses=_NOT_FOUND
)
async def pause(
    context: Context, caller: Operator, schedule_id: ScheduleId, body: PauseReason | None = None
) -> Response:
    """Stop a schedule from starting anything; a slot that is queued is withdrawn."""
    async with context.transaction() as session:
        await schedules.pause_schedule(session, schedule_id, caller.name, None if body is None else body.reason)
        document = await _read(session, schedule_id)
    return _answer(document)


@router.post(
    "/{schedule_id}/resume", operation_id="resume_schedule", response_model=ScheduleDocument, responses=_NOT_FOUND
)
async def resume(context: Context, caller: Operator, schedule_id: ScheduleId) -> Response:
    """Let a schedule go on with its first slot after now; those while it was paused are not missed ones."""
    async with context.transaction() as session:
        await schedules.resume_schedule(session, schedule_id, caller.name)
        document = await _read(session, schedule_id)
    return _answer(document)


@router.post(
    "/{schedule_id}/reset",
    operation_id="reset_schedule",
    response_model=ScheduleDocument,
    responses={**_NOT_FOUND, 409: {"description": "No code declares it."}},
)
async def reset(context: Context, caller: Operator, schedule_id: ScheduleId) -> Response:
    """Make a schedule what code declares, in all fields, also one that was removed."""
    async with context.transaction() as session:
        await schedules.reset_schedule(session, schedule_id, caller.name)
        document = await _read(session, schedule_id)
    return _answer(document)


async def _change(context: Context, caller: Caller, schedule_id: UUID, body: ScheduleChange) -> Response:
    async def edit(session: AsyncSession) -> bytes:
        stored = (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored
        changes = body.list_changes(stored.trigger, await read_time(session))
        await schedules.edit_schedule(session, schedule_id, changes, caller.name, context.limits)
        if "enabled" in body.model_fields_set:
            if body.enabled:
                await schedules.resume_schedule(session, schedule_id, caller.name)
            else:
                await schedules.pause_schedule(session, schedule_id, caller.name)
        return await _read(session, schedule_id)

    return _answer(await context.run_author_code(await _find_workflow(context, schedule_id), edit))


async def _find_workflow(context: Context, schedule_id: UUID) -> str:
    async with context.transaction() as session:
        return (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored.workflow


async def _name_workflow(session: AsyncSession, workflow_id: UUID | None, name: str | None) -> str:
    """Return the workflow's name.

    Raises:
        InvalidInputError: neither is given, or they are of different workflows.
        NotFoundError: there is no workflow with this id.
    """
    if workflow_id is None:
        if name is None:
            text = "name the workflow: workflow_id, workflow_name or both"
            raise InvalidInputError(text, [{"loc": ("workflow_id",), "msg": text, "type": "missing"}])
        return name
    found = await find_workflow_name(session, workflow_id)
    if found is None:
        raise NotFoundError(f"there is no workflow {workflow_id}")
    if name not in {None, found}:
        text = f"the workflow {workflow_id} is {found!r}"
        raise InvalidInputError(text, [{"loc": ("workflow_name",), "msg": text, "type": "value_error"}])
    return found


async def _read(session: AsyncSession, schedule_id: UUID) -> bytes:
    return to_json(write_document(await show_schedule(session, schedule_id)))


def _answer(document: bytes, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(document, status, headers, media_type="application/json")
