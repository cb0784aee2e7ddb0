"""Start a workflow, and give a suspended process its input: by the pages of its form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.api.ui.wizard import Sending, Wizard
from orchestrator.authorization import Role
from orchestrator.db import metadata
from orchestrator.db.processes.rows import find_workflow, load_process
from orchestrator.errors import FormIncompleteError
from orchestrator.messages import Name
from orchestrator.registry import known_workflows, plan_of
from orchestrator.services import control
from orchestrator.services.start import StartRequest, prepare_start
from orchestrator.targets import Target
from orchestrator.types import State

router = PageRouter()

Starter = Annotated[Page, visit(Role.START)]
WorkflowName = Annotated[Name, Path()]
Chosen = Annotated[UUID | None, Query()]

_GROUPS: Final = (
    (Target.CREATE, "Create a subscription"),
    (Target.MODIFY, "Change a subscription"),
    (Target.TERMINATE, "Terminate a subscription"),
    (Target.SYSTEM, "Tasks"),
    (Target.VALIDATE, "Validate a subscription"),
    (Target.RECONCILE, "Reconcile a subscription"),
)


@router.get("/start")
async def choose_workflow(page: Starter) -> Response:
    """Show what may be started, by what it does; what this program's code does not have is left out."""
    async with page.context.transaction() as session:
        rows = await metadata.list_metadata(session, metadata.WORKFLOWS)
    known = set(known_workflows())
    found = [row for row in rows if row["name"] in known]
    groups = [(title, [row for row in found if row["target"] == target.value]) for target, title in _GROUPS]
    return await page.render("start.html", groups=[one for one in groups if one[1]], unknown=len(rows) - len(found))


@router.get("/start/{workflow}")
async def open_start(
    page: Starter, workflow: WorkflowName, product: Chosen = None, subscription: Chosen = None
) -> Response:
    """Show the first page of a workflow's form; the one after the product or subscription when it is given."""
    chosen: list[State] = []
    if product is not None:
        chosen.append({"product": str(product)})
    elif subscription is not None:
        chosen.append({"subscription_id": str(subscription)})
    return await (await _make_start(page, workflow)).open(chosen)


@router.post("/start/{workflow}")
async def take_start(page: Starter, workflow: WorkflowName) -> Response:
    """Take a page of a workflow's form; start it after the last one."""
    return await (await _make_start(page, workflow)).take()


@router.get("/processes/{process_id}/input")
async def open_input(page: Starter, process_id: UUID) -> Response:
    """Show the first page of the form that a process waits for."""
    return await (await _make_input(page, process_id)).open()


@router.post("/processes/{process_id}/input")
async def take_input(page: Starter, process_id: UUID) -> Response:
    """Take a page of the form; let the process go on after the last one."""
    return await (await _make_input(page, process_id)).take()


async def _make_start(page: Page, workflow: str) -> Wizard:
    context = page.context
    async with context.transaction() as session:
        row = await metadata.read_metadata(session, metadata.WORKFLOWS, workflow)
    name: str = row["name"]
    heading = row["description"] or plan_of(name).workflow.description or name

    async def ask(pages: Sequence[State]) -> FormIncompleteError | None:
        request = StartRequest(name, pages, page.user)

        async def prepare(session: AsyncSession) -> FormIncompleteError | None:
            try:
                await prepare_start(session, request, context.limits)
            except FormIncompleteError as error:
                return error
            return None

        return await context.run_author_code(name, prepare)

    async def send(pages: Sequence[State], sending: Sending) -> Response:
        request = StartRequest(name, pages, page.user, sending.key, page.caller.sender if page.caller else None)
        outcome = await context.starter.start(request)
        if outcome.message is not None:
            context.notify_started(outcome.message)
        return page.go(f"/processes/{outcome.process_id}")

    return Wizard(page, ask, send, heading, f"Workflow {name}", "Start", "/start")


async def _make_input(page: Page, process_id: UUID) -> Wizard:
    context = page.context
    async with context.transaction() as session:
        process = await load_process(session, process_id)
    name = await find_workflow(context.database.pool, process_id) or ""

    async def ask(pages: Sequence[State]) -> FormIncompleteError | None:
        return await context.run_author_code(
            name, lambda session: control.find_page(session, process_id, pages, page.user)
        )

    async def send(pages: Sequence[State], sending: Sending) -> Response:
        def resume(session: AsyncSession) -> Any:
            return control.resume(
                session, process_id, pages, page.user, context.limits, key=sending.key, seen=sending.seen
            )

        await context.change_process(process_id, resume)
        return page.go(f"/processes/{process_id}")

    explanation = f"Process {process_id} of the workflow {name} waits for this"
    return Wizard(page, ask, send, process.step or name, explanation, "Submit", f"/processes/{process_id}")
