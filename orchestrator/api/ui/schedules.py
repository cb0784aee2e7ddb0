"""Schedules: what starts by itself, when next, and what became of it; make, change, pause, run and remove one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Path
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from orchestrator.api.schedule_bodies import ScheduleChange, ScheduleCreation
from orchestrator.api.ui import listing
from orchestrator.api.ui.listing import First, Text
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.api.ui.wizard import Sending, Wizard
from orchestrator.authorization import Role
from orchestrator.db.lists.page import Page as ListPage
from orchestrator.db.lists.request import ListRequest
from orchestrator.db.lists.schedules import page_schedules
from orchestrator.db.session import read_time
from orchestrator.errors import FormIncompleteError, InvalidInputError, NotFoundError
from orchestrator.services import schedules
from orchestrator.services.schedule_change_form import fill_schedule_change
from orchestrator.services.schedule_form import fill_schedule_form
from orchestrator.services.schedule_reading import (
    ListedSchedule,
    ScheduleState,
    describe,
    describe_trigger,
    show_schedule,
)
from orchestrator.types import State

router = PageRouter()

Reader = Annotated[Page, visit(Role.READ)]
Starter = Annotated[Page, visit(Role.START)]
Operator = Annotated[Page, visit(Role.OPERATE)]
ScheduleId = Annotated[UUID, Path()]

_STATES = [one.value for one in ScheduleState if one is not ScheduleState.REMOVED]


@router.get("/schedules")
async def list_all(page: Reader, q: Text = "", state: Text = "", workflow: Text = "", first: First = 0) -> Response:
    """Show the schedules that fit, by their names."""
    filters = {"state": state, "workflow_name": workflow}

    async def read(session: AsyncSession, request: ListRequest) -> ListPage[ListedSchedule]:
        found = await page_schedules(session, request)
        return ListPage([describe(one) for one in found.rows], found.first, found.total)

    found = await listing.find(page, read, first, q, filters)
    shown = {"q": q, "state": state, "workflow": workflow}
    return await page.render(
        "schedules.html",
        found=found,
        shown=shown,
        states=_STATES,
        trigger_of=describe_trigger,
        link=listing.linker(page, "/schedules", **shown),
        count=listing.ROWS,
    )


@router.get("/schedules/new")
async def open_form(page: Starter) -> Response:
    """Show the first page of the form by which a schedule is made."""
    return await _make_wizard(page).open()


@router.post("/schedules/new")
async def take_form(page: Starter) -> Response:
    """Take a page of that form; make the schedule after the last one."""
    return await _make_wizard(page).take()


@router.get("/schedules/{schedule_id}")
async def show(page: Reader, schedule_id: ScheduleId) -> Response:
    """Show a schedule with its next slots, what became of the newest ones, and what was done to it; also a removed one."""
    async with page.context.transaction() as session:
        found = await show_schedule(session, schedule_id)
    return await page.render(
        "schedule.html", found=found, one=found.listed.stored, trigger_of=describe_trigger, key=uuid4()
    )


@router.get("/schedules/{schedule_id}/change")
async def open_change(page: Operator, schedule_id: ScheduleId) -> Response:
    """Show the first page of the form by which a schedule is changed."""
    return await (await _make_change_wizard(page, schedule_id)).open()


@router.post("/schedules/{schedule_id}/change")
async def take_change(page: Operator, schedule_id: ScheduleId) -> Response:
    """Take a page of that form; change the schedule after the last one."""
    return await (await _make_change_wizard(page, schedule_id)).take()


@router.post("/schedules/{schedule_id}/pause")
async def pause(page: Operator, schedule_id: ScheduleId) -> Response:
    """Stop a schedule from starting anything."""
    reason = await _read(page, "reason")
    return await _change(
        page, schedule_id, lambda session: schedules.pause_schedule(session, schedule_id, page.user, reason or None)
    )


@router.post("/schedules/{schedule_id}/resume")
async def resume(page: Operator, schedule_id: ScheduleId) -> Response:
    """Let a schedule go on with its first slot after now."""
    return await _change(page, schedule_id, lambda session: schedules.resume_schedule(session, schedule_id, page.user))


@router.post("/schedules/{schedule_id}/reset")
async def reset(page: Operator, schedule_id: ScheduleId) -> Response:
    """Make a schedule what the code declares, also one that was removed."""
    return await _change(page, schedule_id, lambda session: schedules.reset_schedule(session, schedule_id, page.user))


@router.post("/schedules/{schedule_id}/delete")
async def remove(page: Operator, schedule_id: ScheduleId) -> Response:
    """Remove a schedule. One that code declares stays removed."""
    if await _read(page, "sure") != "yes":
        raise InvalidInputError("tick the box first: a schedule that is removed starts nothing any more")
    return await _change(page, schedule_id, lambda session: schedules.remove_schedule(session, schedule_id, page.user))


@router.post("/schedules/{schedule_id}/run")
async def run(page: Starter, schedule_id: ScheduleId) -> Response:
    """Start a schedule's workflow now; its slots stay as they are. Sent twice by one page, it starts one process."""
    context, key = page.context, await _read(page, "key") or None
    async with context.transaction() as session:
        workflow = (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored.workflow
    sender = page.caller.sender if page.caller else None
    outcome = await context.run_author_code(
        workflow, lambda session: schedules.run_schedule(session, schedule_id, page.user, context.limits, key, sender)
    )
    if outcome.message is not None:
        context.notify_started(outcome.message)
    return page.go(f"/processes/{outcome.process_id}")


async def _read(page: Page, name: str) -> str:
    found = (await page.form()).get(name)
    return found if isinstance(found, str) else ""


async def _change(page: Page, schedule_id: UUID, act: Callable[[AsyncSession], Awaitable[Any]]) -> Response:
    async with page.context.transaction() as session:
        await act(session)
    return page.go(f"/schedules/{schedule_id}")


def _make_wizard(page: Page) -> Wizard:
    context = page.context

    async def fill(pages: Sequence[State]) -> State:
        # Whose form it is, the first page says.
        task = str(pages[0].get("task")) if pages else ""
        return await context.run_author_code(
            task, lambda session: fill_schedule_form(session, pages, page.user, datetime.now(UTC))
        )

    async def ask(pages: Sequence[State]) -> FormIncompleteError | None:
        try:
            await fill(pages)
        except FormIncompleteError as error:
            return error
        return None

    async def send(pages: Sequence[State], _: Sending) -> Response:
        body = ScheduleCreation.model_validate(await fill(pages))
        workflow = body.workflow_name or ""

        async def add(session: AsyncSession) -> UUID:
            definition = body.define(workflow, await read_time(session))
            return (await schedules.add_schedule(session, definition, page.user, context.limits)).schedule_id

        return page.go(f"/schedules/{await context.run_author_code(workflow, add)}")

    explanation = "A task, its own pages, and when it runs. Nothing is stored before the last page."
    return Wizard(page, ask, send, "New schedule", explanation, "Make the schedule", "/schedules")


async def _make_change_wizard(page: Page, schedule_id: UUID) -> Wizard:
    async with page.context.transaction() as session:
        stored = (await show_schedule(session, schedule_id, coming=0, recent=0)).listed.stored
    if stored.deleted_at is not None:
        raise NotFoundError(f"the schedule {stored.name!r} was removed by {stored.deleted_by!r}")

    async def ask(pages: Sequence[State]) -> FormIncompleteError | None:
        try:
            fill_schedule_change(stored, pages, datetime.now(UTC))
        except FormIncompleteError as error:
            error.sequence = schedules.count_edition(stored)
            return error
        return None

    async def send(pages: Sequence[State], sending: Sending) -> Response:
        if sending.seen is None:
            raise InvalidInputError("the form has lost which edition of the schedule it began with: open it again")
        body = ScheduleChange.model_validate(fill_schedule_change(stored, pages, datetime.now(UTC)))

        async def edit(session: AsyncSession) -> None:
            changes = body.list_changes(stored.trigger, await read_time(session))
            limits, seen = page.context.limits, sending.seen
            await schedules.edit_schedule(session, schedule_id, changes, page.user, limits, seen=seen)

        return await _change(page, schedule_id, edit)

    explanation = f"When {stored.workflow} runs. Its name, its workflow and the pages of its form stay as they are."
    return Wizard(page, ask, send, f"Change {stored.name}", explanation, "Change it", f"/schedules/{schedule_id}")
