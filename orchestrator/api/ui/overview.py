"""The first page: what the engine does, and what needs a person."""

from __future__ import annotations

from typing import Annotated, Final

from starlette.responses import Response

from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.db.processes.counts import count_statuses
from orchestrator.types import ProcessStatus

router = PageRouter()

NEEDS_SOMEBODY: Final = (
    ProcessStatus.SUSPENDED,
    ProcessStatus.FAILED,
    ProcessStatus.INCONSISTENT_DATA,
    ProcessStatus.API_UNAVAILABLE,
)
"""Statuses in which a process rests until a person acts."""


@router.get("")
@router.get("/")
async def show_overview(page: Annotated[Page, visit(Role.READ)]) -> Response:
    """Show the first page."""
    async with page.context.transaction() as session:
        counts = await count_statuses(session)
    return await page.render("overview.html", counts=counts, needs=NEEDS_SOMEBODY, statuses=list(ProcessStatus))
