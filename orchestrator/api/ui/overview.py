"""The first page: what the engine does, and what needs a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from starlette.responses import Response

from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.broker.connection import BrokerAddress
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import read_request
from orchestrator.db.processes.counts import count_statuses
from orchestrator.db.status import (
    Overdue,
    Unclaimed,
    count_open_letters,
    list_overdue,
    list_unclaimed,
    read_engine_status,
)
from orchestrator.operations.explanation import LATE_AFTER, describe_culprit
from orchestrator.operations.waiting import Wait, list_inabilities
from orchestrator.operations.workers import WorkerStatus, read_worker_status
from orchestrator.registry import queue_of
from orchestrator.services.pause import set_paused
from orchestrator.types import ProcessStatus

router = PageRouter()

NEEDS_A_PERSON: Final = (
    ProcessStatus.FAILED,
    ProcessStatus.INCONSISTENT_DATA,
    ProcessStatus.API_UNAVAILABLE,
    ProcessStatus.SUSPENDED,
)
"""Statuses in which a process rests until a person acts."""

ROWS: Final = 10
"""Processes of each kind that are named on this page."""

UNATTENDED_AFTER: Final = 5.0
"""Seconds after which a step that no consumer has claimed is worth a word."""

Visit = Annotated[Page, visit(Role.READ)]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Steps that no consumer has claimed, and what they wait for."""

    steps: Unclaimed
    wait: Wait


@router.get("")
@router.get("/")
async def show_overview(page: Visit) -> Response:
    """Show what PostgreSQL knows; what RabbitMQ knows is asked for by the page, because it may take seconds."""
    return await page.render("overview.html", **await _read(page))


@router.get("/overview")
async def show_counts(page: Visit) -> Response:
    """Show the part of the first page that changes."""
    return await page.render("_overview.html", **await _read(page))


@router.get("/workers")
async def show_workers(page: Visit) -> Response:
    """Show consumers and queues, and what is wrong with them."""
    async with page.context.database.pool.acquire() as connection:
        status = await read_worker_status(connection, BrokerAddress.of(page.context.settings, "orchestrator api"))
        engine = await read_engine_status(connection)
        unclaimed = await list_unclaimed(connection, UNATTENDED_AFTER)
        overdue = [] if engine.paused else await list_overdue(connection, LATE_AFTER)
    waiting = [
        Waiting(
            one,
            Wait.of(
                one.workflow,
                queue_of(one.workflow, one.step),
                status.consumers,
                paused=engine.paused,
                plans=one.plans,
            ),
        )
        for one in unclaimed
    ]
    return await page.render("_workers.html", status=status, problems=_list_problems(status, overdue), waiting=waiting)


@router.post("/pause")
async def pause(page: Annotated[Page, visit(Role.OPERATE)]) -> Response:
    """Pause the engine, or let it go on."""
    form = await page.form()
    reason = str(form.get("reason", "")).strip() or None
    async with page.context.transaction() as session:
        await set_paused(session, form.get("paused") == "yes", page.user, reason)
    return page.go("")


async def _read(page: Page) -> dict[str, Any]:
    request = read_request(
        rows=f"0,{ROWS - 1}",
        sort=["last_modified_at,desc"],
        filters=[f"last_status,{'|'.join(NEEDS_A_PERSON)}"],
    )
    async with page.context.transaction() as session:
        counts = await count_statuses(session)
        needing = await page_processes(session, request)
    async with page.context.database.pool.acquire() as connection:
        engine = await read_engine_status(connection)
        letters = await count_open_letters(connection)
    return {
        "counts": counts,
        "needing": needing.rows,
        "needs": NEEDS_A_PERSON,
        "statuses": list(ProcessStatus),
        "engine": engine,
        "letters": letters,
    }


def _list_problems(status: WorkerStatus, overdue: list[Overdue]) -> list[str]:
    """Return what is wrong with programs and queues, a sentence each."""
    found = list(list_inabilities(status.consumers))
    if not status.online:
        found.append("no consumer runs: 'orchestrator consumer' starts one")
    found += [
        f"{one.name} does not respond: its event loop is blocked{describe_culprit(one.blocked_by)}"
        for one in status.consumers
        if one.alive and one.blocked_for is not None
    ]
    found += [
        f"{one.name} has {one.threads_left_behind} threads that go on after the end of their step"
        for one in status.consumers
        if one.threads_left_behind
    ]
    if status.queues is None:
        found.append("RabbitMQ cannot be reached: what waits in its queues is not known")
    found += [
        f"no program reads the queue {queue.name}, in which {queue.ready} messages wait"
        for queue in status.queues or ()
        if queue.ready and not queue.consumers
    ]
    found += [
        f"{late.processes} processes of {late.workflow!r} are due, and no coordinator takes them: is one running that has"
        " their plan?"
        for late in overdue
    ]
    return found
