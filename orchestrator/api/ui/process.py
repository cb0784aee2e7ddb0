"""One process: why it does not go on, what has happened, what is to come; live."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import Header, Query
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator.api.process_document import list_steps_to_come
from orchestrator.api.routes.events import open_stream
from orchestrator.api.ui.page import Page, PageRouter, find_sessions, visit
from orchestrator.authorization import Role
from orchestrator.db.processes.detail import ProcessDetail, read_detail
from orchestrator.db.processes.queries import read_tries
from orchestrator.engine import events
from orchestrator.engine.position import MAX_TEXT
from orchestrator.engine.transitions import TRANSITIONS
from orchestrator.errors import OrchestratorError
from orchestrator.operations.explain import explain_process
from orchestrator.operations.explanation import STUCK, Explanation
from orchestrator.services.feed import EventFilter, read_now
from orchestrator.types import ProcessStatus

logger = structlog.get_logger(__name__)

router = PageRouter()

TO_COME: Final = 25
"""Steps to come that are listed; they are sent again with every change."""

NOTHING_SEEN: Final = -1

_ACTIONS: Final = {
    "retry": events.Retried,
    "abort": events.Aborted,
    "patch": events.Patched,
    "skip": events.StepSkipped,
    "rewind": events.Rewound,
    "resume": events.Submitted,
}

Visit = Annotated[Page, visit(Role.READ)]


@dataclass(frozen=True, slots=True)
class Shown:
    """A process as its page shows it.

    Args:
        entries: of the log, oldest first; only newer ones than the page has.
        tries: which try of its step each entry is, by its number.
        to_come: the next steps; ``more`` is how many there are beyond them.
        actions: what may be done in its status.
    """

    head: dict[str, Any]
    entries: list[dict[str, Any]]
    tries: dict[int, int]
    to_come: list[dict[str, Any]]
    more: int
    subscriptions: list[dict[str, Any]]
    callback: dict[str, Any] | None
    explanation: Explanation | None
    is_stuck: bool
    actions: frozenset[str]

    @property
    def key(self) -> str:
        """What the forms for actions depend on; while a process runs, its log grows and they stay."""
        status = self.head["last_status"]
        return status if status == ProcessStatus.RUNNING else f"{status}-{self.head['sequence']}"


@router.get("/processes/{process_id}")
async def show_process(page: Visit, process_id: UUID) -> Response:
    """Show a process with its whole log. Deltas and states are not in it: each is asked for when it is opened."""
    # From here on the page follows what happens, so that nothing is missed between its text and its stream.
    since = await read_now(page.context.database.pool)
    shown = await _read(page, process_id, NOTHING_SEEN)
    return await page.render("process.html", process=shown, head=shown.head, since=str(since))


@router.get("/processes/{process_id}/news")
async def show_news(page: Visit, process_id: UUID, after: int, seen: str = "") -> Response:
    """Show what has changed since the page has seen an entry of the log, and what may be done if that is ``seen`` no more."""
    shown = await _read(page, process_id, max(after, NOTHING_SEEN))
    return await page.render("_process_news.html", process=shown, head=shown.head, seen=seen)


@router.get("/processes/{process_id}/entries/{sequence}")
async def show_entry(page: Visit, process_id: UUID, sequence: int) -> Response:
    """Show what one entry of the log has changed in the state, and its failure."""
    async with page.context.transaction() as session:
        detail = await read_detail(session, process_id, sequence - 1)
    entry = await asyncio.to_thread(_find_entry, detail, sequence)
    if entry is None:
        raise HTTPException(404, "the log of this process has no such entry")
    template = "_entry.html" if page.is_fragment else "entry.html"
    return await page.render(template, entry=entry, head=from_json(detail.head))


@router.get("/processes/{process_id}/state")
async def show_state(page: Visit, process_id: UUID) -> Response:
    """Show the state of a process."""
    async with page.context.transaction() as session:
        detail = await read_detail(session, process_id)
    state = await asyncio.to_thread(from_json, detail.state)
    template = "_state.html" if page.is_fragment else "state.html"
    return await page.render(template, state=state, head=from_json(detail.head))


@router.get("/processes/{process_id}/events")
async def follow(
    page: Visit,
    process_id: UUID,
    since: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    last_event_id: Annotated[str | None, Header(max_length=MAX_TEXT)] = None,
) -> Response:
    """Send the events of a process, by which its page knows that there is news."""

    async def may_read() -> bool:
        return (await find_sessions(page.request).find(page.request)).caller is not None

    return await open_stream(page.context, may_read, EventFilter(process_id), last_event_id or since)


async def _read(page: Page, process_id: UUID, after: int) -> Shown:
    async with page.context.transaction() as session:
        detail = await read_detail(session, process_id, after)
        tries = await read_tries(session, process_id)
    explanation: Explanation | None = None
    if not ProcessStatus(detail.status).is_final:
        try:
            async with page.context.database.pool.acquire() as connection:
                explanation = await explain_process(connection, process_id)
        except OrchestratorError as error:
            logger.info("a process cannot be explained", process_id=str(process_id), error=str(error))
    return await asyncio.to_thread(_make, detail, tries, explanation)


def _make(detail: ProcessDetail, tries: dict[int, int], explanation: Explanation | None) -> Shown:
    status = ProcessStatus(detail.status)
    to_come = list_steps_to_come(detail)
    entries: list[dict[str, Any]] = from_json(f"[{detail.steps}]")
    return Shown(
        head=from_json(detail.head),
        entries=entries,
        tries=tries,
        to_come=to_come[:TO_COME],
        more=max(0, len(to_come) - TO_COME),
        subscriptions=from_json(detail.subscriptions),
        callback=None if detail.callback is None else from_json(detail.callback),
        explanation=explanation,
        is_stuck=explanation is not None and explanation.kind in STUCK,
        actions=frozenset(name for name, event in _ACTIONS.items() if status in TRANSITIONS[event]),
    )


def _find_entry(detail: ProcessDetail, sequence: int) -> dict[str, Any] | None:
    entries: list[dict[str, Any]] = from_json(f"[{detail.steps}]")
    return next((one for one in entries if one["sequence"] == sequence), None)
