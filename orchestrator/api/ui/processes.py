"""Processes: find them, and retry or abort many of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from starlette.responses import Response

from orchestrator.api.bulk import carry_out
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import ListRequest, read_request
from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.errors import InvalidInputError, InvalidQueryError, RequestError
from orchestrator.operations.bulk import BulkAction, select_processes
from orchestrator.types import ProcessStatus

router = PageRouter()

ROWS: Final = 100
"""Rows of a page."""

AT_ONCE: Final = 1_000
"""Processes of one bulk action: a person waits for its end."""

SHOWN: Final = 100
"""Refusals of a bulk action that are named one by one."""

SORTS: Final = {
    "started_at,desc": "newest first",
    "started_at,asc": "oldest first",
    "last_modified_at,desc": "changed last",
    "last_modified_at,asc": "unchanged for longest",
    "workflow_name,asc": "workflow",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which processes a page is about, as its address says it."""

    status: list[str]
    workflow: str = ""
    kind: str = ""
    assignee: str = ""
    created_by: str = ""
    subscription: str = ""
    q: str = ""
    sort: str = ""
    first: int = 0

    def request(self) -> ListRequest:
        """Return what is asked of the list.

        Raises:
            InvalidQueryError: something of it is not written as it must be.
        """
        pairs = {
            "last_status": "|".join(self.status),
            "workflow_name": self.workflow,
            "is_task": {"task": "true", "workflow": "false"}.get(self.kind, ""),
            "assignee": self.assignee,
            "created_by": self.created_by,
            "subscription_id": self.subscription,
        }
        filters = [f"{name},{value.replace(',', chr(92) + ',')}" for name, value in pairs.items() if value.strip()]
        rows = f"{self.first},{self.first + ROWS - 1}"
        return read_request(rows=rows, sort=[self.sort] if self.sort else (), filters=filters, query=self.q)

    def filter(self) -> ProcessFilter:
        """Return the same conditions for a bulk action.

        Raises:
            InvalidInputError: bulk actions do not know one of them.
        """
        unknown = {"the search": self.q, "who has started it": self.created_by}
        for name, value in unknown.items():
            if value.strip():
                raise InvalidInputError(f"many at once are chosen by status, workflow, kind and assignee: empty {name}")
        if any(mark in f"{self.workflow}{self.assignee}" for mark in "|*!"):
            raise InvalidInputError("many at once need the whole name of a workflow or assignee, without | * and !")
        return ProcessFilter(
            statuses=tuple(self.status),
            workflow=self.workflow.strip() or None,
            is_task={"task": True, "workflow": False}.get(self.kind),
            subscription=self.subscription.replace("-", "").lower() or None,
            assignee=self.assignee.strip() or None,
        )

    def query(self, **changes: object) -> Mapping[str, object]:
        """Return the parameters of an address with the same conditions; the page begins with the first row again."""
        known = {
            "status": self.status,
            "workflow": self.workflow,
            "kind": self.kind,
            "assignee": self.assignee,
            "created_by": self.created_by,
            "subscription": self.subscription,
            "q": self.q,
            "sort": self.sort,
        }
        return {**known, **changes}


def read_wanted(
    status: Annotated[list[str] | None, Query()] = None,
    workflow: str = "",
    kind: str = "",
    assignee: str = "",
    created_by: str = "",
    subscription: str = "",
    q: str = "",
    sort: str = "",
    first: int = 0,
) -> Wanted:
    """Return what an address asks for."""
    statuses = [one for part in status or () for one in part.split("|") if one]
    return Wanted(
        statuses, workflow, kind, assignee, created_by, subscription, q, sort if sort in SORTS else "", max(0, first)
    )


Asked = Annotated[Wanted, Depends(read_wanted)]


@router.get("/processes")
async def list_processes(page: Annotated[Page, visit(Role.READ)], wanted: Asked) -> Response:
    """Show a page of processes; what is wrong with the search stands above an empty one."""
    words: str | None = None
    rows: list[dict[str, Any]] = []
    total: int | None = 0
    try:
        request = wanted.request()
        async with page.context.transaction() as session:
            found = await page_processes(session, request)
        rows, total = list(found.rows), found.total
    except InvalidQueryError as error:
        words = str(error)
    return await page.render(
        "_process_rows.html" if page.is_fragment else "processes.html",
        HTTPStatus.OK if words is None else HTTPStatus.UNPROCESSABLE_ENTITY,
        wanted=wanted,
        rows=rows,
        total=total,
        words=words,
        count=ROWS,
        statuses=list(ProcessStatus),
        sorts=SORTS,
    )


@router.get("/processes/bulk")
async def ask_for_bulk(page: Annotated[Page, visit(Role.OPERATE)], wanted: Asked, action: BulkAction) -> Response:
    """Say how many processes an action would be done to, and ask whether it should be."""
    words, matched = None, 0
    try:
        matched = (await select_processes(page.context.database, action, wanted.filter(), 1)).matched
    except RequestError as error:
        words = str(error)
    return await page.render(
        "bulk.html", action=action.value, wanted=wanted, matched=matched, at_once=AT_ONCE, words=words
    )


@router.post("/processes/bulk")
async def act_on_processes(page: Annotated[Page, visit(Role.OPERATE)], wanted: Asked, action: BulkAction) -> Response:
    """Do an action to all processes that fit, a thousand at most; show what came of it."""
    form = await page.form()
    reason = str(form.get("reason", "")).strip() or None
    selection = await select_processes(page.context.database, action, wanted.filter(), AT_ONCE)
    outcome = await carry_out(page.context, selection, page.user, reason)
    return await page.render("bulk_done.html", action=action.value, wanted=wanted, outcome=outcome, shown=SHOWN)
