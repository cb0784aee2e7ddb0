"""Look at processes: lists, counts, and one with its log."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Path
from pydantic import BaseModel
from starlette.responses import Response

from orchestrator.api.answers import IfNoneMatch, answer_unless_known
from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import ApiContext, Context
from orchestrator.api.lists import LIST_RESPONSES, Asked, answer_page
from orchestrator.api.problems import Responses
from orchestrator.api.process_document import write_process
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.processes.counts import count_statuses
from orchestrator.db.processes.detail import ProcessDetail, read_detail
from orchestrator.errors import OrchestratorError
from orchestrator.operations.explain import explain_process
from orchestrator.services.control import input_form
from orchestrator.types import JSON, ProcessStatus

logger = structlog.get_logger(__name__)

router = Router(prefix="/processes", tags=["processes"])

_NOT_FOUND: Final[Responses] = {404: {"description": "There is no such process."}}


class ProductReference(BaseModel):
    """A product, in short."""

    product_id: UUID
    name: str
    product_type: str
    tag: str


class TouchedSubscription(BaseModel):
    """A subscription that a process has touched."""

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    customer_id: str
    product: ProductReference


class ProcessItem(BaseModel):
    """A process in a list: without its state and log, with the first hundred subscriptions that it has touched.

    `parent_id` is the process one of whose steps has started it.
    """

    process_id: UUID
    workflow_id: UUID
    workflow_name: str
    workflow_target: str
    is_task: bool
    last_status: ProcessStatus
    last_step: str | None
    created_by: str
    assignee: str
    started_at: datetime
    last_modified_at: datetime
    note: str | None
    parent_id: UUID | None
    failed_reason: str | None
    subscriptions: list[TouchedSubscription]


class ProcessStep(BaseModel):
    """An entry of a process's log: an attempt of a step (`kind` is `step`), or something done to the process.

    Steps to come have no `sequence`; their status is `pending`, or `running`.
    """

    sequence: int | None
    kind: str
    name: str
    status: str
    attempt: int | None
    position: int | None
    started_at: datetime | None
    completed_at: datetime | None
    created_by: str | None
    consumer: str | None
    state_delta: dict[str, Any] | None
    removed: list[str] | None
    failure: dict[str, Any] | None
    note: str | None


class WaitedCallback(BaseModel):
    """The callback that a process waits for; its token is nowhere shown."""

    step: str
    status: str
    progress: Any
    deadline: datetime | None
    created_at: datetime


class ProcessDocument(ProcessItem):
    """A process with its log.

    `current_state` is what the process knows, with references to subscriptions, not their content; the content as it was when
    they were locked is under `__old_subscriptions__`. `form` is the JSON schema of the first page that a suspended process
    waits for. `waits_for` says why the process does not go on. `actor` has started, resumed or retried it last; `claimed` says
    whether a consumer runs its step at this moment.
    """

    workflow_description: str
    actor: str
    claimed: bool
    noted_by: str | None
    noted_at: datetime | None
    sequence: int
    attempt: int
    due_at: datetime | None
    traceback: str | None
    product_id: UUID | None
    customer_id: str | None
    form: Any
    waits_for: dict[str, Any] | None
    callback: WaitedCallback | None
    steps: list[ProcessStep]
    current_state: dict[str, Any]


class StatusCounts(BaseModel):
    """How many processes, and how many tasks, have which status."""

    process_counts: dict[ProcessStatus, int]
    task_counts: dict[ProcessStatus, int]


@router.get("", operation_id="list_processes", response_model=list[ProcessItem], responses=LIST_RESPONSES)
async def list_processes(
    context: Context, caller: Annotated[Caller, requires(Role.READ)], asked: Asked, if_none_match: IfNoneMatch = None
) -> Response:
    """List processes, the newest first unless `sort` says otherwise."""
    del caller
    async with context.transaction() as session:
        page = await page_processes(session, asked)
    return await answer_page(page, "processes", if_none_match)


@router.get("/status-counts", operation_id="count_processes")
async def count_processes(context: Context, caller: Annotated[Caller, requires(Role.READ)]) -> StatusCounts:
    """Count processes and tasks by their status."""
    del caller
    async with context.transaction() as session:
        counts = await count_statuses(session)
    return StatusCounts.model_validate(counts, from_attributes=True)


@router.get(
    "/{process_id}",
    operation_id="show_process",
    response_model=ProcessDocument,
    responses={**_NOT_FOUND, 304: {"description": "Nothing of it has changed."}},
)
async def show_process(
    context: Context,
    caller: Annotated[Caller, requires(Role.READ)],
    process_id: Annotated[UUID, Path(description="The process.")],
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Show one process with all attempts of its steps, its state, and what it waits for."""
    del caller
    async with context.transaction() as session:
        detail = await read_detail(session, process_id)
    form = await _read_form(context, process_id, detail)
    explanation = None if ProcessStatus(detail.status).is_final else await _explain(context, process_id)
    return await asyncio.to_thread(lambda: answer_unless_known(write_process(detail, form, explanation), if_none_match))


async def _read_form(context: ApiContext, process_id: UUID, detail: ProcessDetail) -> JSON:
    """Return the form that a process waits for; ``None`` when there is none, or this program cannot make it."""
    if detail.status != ProcessStatus.SUSPENDED:
        return None
    try:
        return await context.run_author_code(detail.workflow, lambda session: input_form(session, process_id))
    except OrchestratorError as error:
        logger.info("the form of a process cannot be shown", process_id=str(process_id), error=str(error))
        return None


async def _explain(context: ApiContext, process_id: UUID) -> dict[str, Any] | None:
    try:
        async with context.database.pool.acquire() as connection:
            return dict((await explain_process(connection, process_id)).document())
    except OrchestratorError as error:
        logger.info("a process cannot be explained", process_id=str(process_id), error=str(error))
        return None
