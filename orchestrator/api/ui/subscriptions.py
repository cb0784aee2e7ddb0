"""Subscriptions: search them; one with its blocks, neighbours, workflows and history; mark one as in sync."""

from __future__ import annotations

import re
from typing import Annotated, Final
from uuid import UUID

from fastapi import Path, Query
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from orchestrator.api.ui import listing
from orchestrator.api.ui.listing import First, Text
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.db import metadata
from orchestrator.db.lists.page import Page as ListPage
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import Filter, ListRequest, Window
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.errors import InvalidQueryError
from orchestrator.services import subscriptions
from orchestrator.services.texts import require_reason
from orchestrator.types import SubscriptionLifecycle

router = PageRouter()

Reader = Annotated[Page, visit(Role.READ)]
SubscriptionId = Annotated[UUID, Path()]

PROCESSES: Final = 20
"""Processes that the page of a subscription names; the history has all."""

_BEFORE: Final = re.compile(r"change-([0-9]{1,18})")


@router.get("/subscriptions")
async def list_subscriptions(
    page: Reader,
    q: Text = "",
    status: Text = "",
    product: Text = "",
    customer: Text = "",
    insync: Text = "",
    first: First = 0,
) -> Response:
    """Show the subscriptions that fit, the newest first."""
    filters = {"status": status, "product": product, "customer_id": customer, "insync": insync}

    async def read(session: AsyncSession, request: ListRequest) -> ListPage[dict[str, object]]:
        return await page_subscriptions(session, request)

    found = await listing.find(page, read, first, q, filters)
    async with page.context.transaction() as session:
        products = [row["name"] for row in await metadata.list_metadata(session, metadata.PRODUCTS)]
    shown = {"q": q, "status": status, "product": product, "customer": customer, "insync": insync}
    return await page.render(
        "subscriptions.html",
        found=found,
        shown=shown,
        products=products,
        statuses=[one.value for one in SubscriptionLifecycle],
        link=listing.linker(page, "/subscriptions", **shown),
        count=listing.ROWS,
    )


@router.get("/subscriptions/{subscription_id}")
async def show_subscription(page: Reader, subscription_id: SubscriptionId) -> Response:
    """Show one subscription: what it is, its blocks, what it uses and what uses it, and what may be done with it."""
    touching = ListRequest(Window(0, PROCESSES), (), (Filter("subscription_id", str(subscription_id)),))
    async with page.context.transaction() as session:
        found = await subscriptions.show(session, subscription_id)
        offers = await subscriptions.workflows_for(session, subscription_id)
    async with page.context.transaction() as session:
        processes = await page_processes(session, touching)
    return await page.render(
        "subscription.html", found=found, one=found.summary, offers=offers, processes=processes.rows, limit=PROCESSES
    )


@router.get("/subscriptions/{subscription_id}/history")
async def show_history(
    page: Reader, subscription_id: SubscriptionId, before: Annotated[str, Query(max_length=60)] = ""
) -> Response:
    """Show what has happened to a subscription, a page at a time, the newest first."""
    async with page.context.transaction() as session:
        found = await subscriptions.read_history(session, subscription_id, before=_read_before(before))
    earlier = f"change-{found.before}" if isinstance(found.before, int) else found.before
    return await page.render(
        "subscription_history.html", subscription_id=subscription_id, timeline=found.timeline()[::-1], earlier=earlier
    )


@router.post("/subscriptions/{subscription_id}/set-in-sync")
async def set_in_sync(page: Annotated[Page, visit(Role.OPERATE)], subscription_id: SubscriptionId) -> Response:
    """Mark a subscription as in sync, once the visitor has made sure that it is."""
    reason = require_reason(str((await page.form()).get("reason", "")))
    async with page.context.transaction() as session:
        await subscriptions.set_in_sync(session, subscription_id, page.user, reason)
    return page.go(f"/subscriptions/{subscription_id}")


def _read_before(written: str) -> UUID | int | None:
    """Return where a page of a history ends.

    Raises:
        InvalidQueryError.
    """
    if not written:
        return None
    found = _BEFORE.fullmatch(written)
    try:
        return int(found[1]) if found is not None else UUID(written)
    except ValueError:
        raise InvalidQueryError("there is no such page of the history") from None
