"""Look at subscriptions: lists, one with its blocks, its workflows and its history; mark one as in sync."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path, Query
from pydantic import BaseModel
from starlette.responses import Response

from orchestrator.api.answers import IfNoneMatch, answer_document
from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.api.lists import LIST_RESPONSES, Asked, answer_page
from orchestrator.api.problems import ProblemResponse, Responses
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.subscriptions.neighbours import Neighbours, read_neighbours
from orchestrator.domain import SubscriptionModel
from orchestrator.engine.usability import IN_USE, RELATIONS_NOT_IN_SYNC
from orchestrator.errors import ConflictError, InvalidQueryError, ModelError, SubscriptionHeldError
from orchestrator.services import subscriptions
from orchestrator.services.subscriptions import Offer
from orchestrator.targets import Target
from orchestrator.text import MAX_REASON, NO_NULL

router = Router(prefix="/subscriptions", tags=["subscriptions"])

_NOT_FOUND: Final[Responses] = {404: {"description": "There is no such subscription."}}
_BEFORE: Final = re.compile(r"change-([0-9]{1,18})")

Reader = Annotated[Caller, requires(Role.READ)]
SubscriptionId = Annotated[UUID, Path(description="The subscription.")]


class SubscriptionItem(BaseModel):
    """A subscription in a list."""

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    customer_id: str
    note: str | None
    version: int
    start_date: datetime | None
    end_date: datetime | None
    created_at: datetime
    last_modified_at: datetime
    locked_by: UUID | None
    product_id: UUID
    product_name: str
    product_description: str
    product_type: str
    tag: str
    product_status: str


@router.get("", operation_id="list_subscriptions", response_model=list[SubscriptionItem], responses=LIST_RESPONSES)
async def list_subscriptions(
    context: Context, caller: Reader, asked: Asked, if_none_match: IfNoneMatch = None
) -> Response:
    """List subscriptions, the newest first unless `sort` says otherwise."""
    del caller
    async with context.transaction() as session:
        page = await page_subscriptions(session, asked)
    return await answer_page(page, "subscriptions", if_none_match)


@router.get(
    "/domain-model/{subscription_id}",
    operation_id="show_domain_model",
    response_model=dict[str, Any],
    responses={**_NOT_FOUND, 409: {"description": "The code of this program cannot load it."}},
)
async def show_domain_model(context: Context, caller: Reader, subscription_id: SubscriptionId) -> Response:
    """Show a subscription as its model has it: a tree of blocks under the names of their fields."""
    del caller
    try:
        async with context.transaction() as session:
            model = await SubscriptionModel.from_subscription(session, subscription_id)
    except ModelError as error:
        raise ConflictError(f"the subscription {subscription_id} cannot be loaded as a model: {error}") from error
    return await answer_document(model.model_dump(mode="json"))


@router.get(
    "/workflows/{subscription_id}",
    operation_id="list_subscription_workflows",
    response_model=dict[str, list[dict[str, Any]]],
    responses=_NOT_FOUND,
)
async def list_workflows(context: Context, caller: Reader, subscription_id: SubscriptionId) -> Response:
    """List the workflows of a subscription's product by their targets, with why one may not run now.

    `reason` is the first reason and `reasons` are all; what they concern stands beside them.
    """
    del caller
    async with context.transaction() as session:
        offers = await subscriptions.workflows_for(session, subscription_id)
        concerned = {reason.key for offer in offers for reason in offer.reasons} & {IN_USE, RELATIONS_NOT_IN_SYNC}
        neighbours = await read_neighbours(session, subscription_id) if concerned else Neighbours((), ())
    descriptions = {one.subscription_id: one.description for one in (*neighbours.uses, *neighbours.in_use_by)}
    found: dict[str, list[dict[str, Any]]] = {target.value.lower(): [] for target in Target}
    for offer in offers:
        found[offer.target.value.lower()].append(_describe_offer(offer, descriptions))
    return await answer_document(found)


@router.put(
    "/{subscription_id}/set_in_sync",
    operation_id="set_in_sync",
    response_model=None,
    responses={**_NOT_FOUND, 422: {"description": "A process that is not finished holds it."}},
)
async def set_in_sync(
    context: Context,
    caller: Annotated[Caller, requires(Role.OPERATE)],
    subscription_id: SubscriptionId,
    reason: Annotated[
        str, Query(description="Why; it goes into the history.", max_length=MAX_REASON, pattern=NO_NULL)
    ] = "set in sync by an operator",
) -> Response:
    """Mark a subscription as in sync, once you have made sure that it is."""
    try:
        async with context.transaction() as session:
            changed = await subscriptions.set_in_sync(session, subscription_id, caller.name, reason)
    except SubscriptionHeldError as error:
        # The field's user interface makes links of the ids between the brackets.
        detail = (
            f"Subscription {subscription_id} is held by a process that is not finished: [{error.details['process_id']}]"
        )
        return ProblemResponse(
            HTTPStatus.UNPROCESSABLE_ENTITY, detail, key=error.key, members={"reasons": error.reasons}
        )
    return await answer_document({"subscription_id": subscription_id, "changed": changed})


@router.get(
    "/{subscription_id}/history",
    operation_id="show_subscription_history",
    response_model=dict[str, Any],
    responses=_NOT_FOUND,
)
async def show_history(
    context: Context,
    caller: Reader,
    subscription_id: SubscriptionId,
    limit: Annotated[int, Query(ge=1, le=1000, description="Processes and other changes on the page.")] = 30,
    before: Annotated[
        str | None, Query(description="The page before this one: `before` of the page after it.", max_length=60)
    ] = None,
) -> Response:
    """Show what has happened to a subscription, the oldest first: processes with their logs, and changes of values."""
    del caller
    async with context.transaction() as session:
        found = await subscriptions.read_history(
            session, subscription_id, limit=limit, before=None if before is None else _read_before(before)
        )
    earlier = f"change-{found.before}" if isinstance(found.before, int) else found.before
    document = {name: getattr(found, name) for name in ("subscription_id", "processes", "other_changes")}
    return await answer_document({**document, "before": earlier})


@router.get("/{subscription_id}", operation_id="show_subscription", response_model=dict[str, Any], responses=_NOT_FOUND)
async def show_subscription(context: Context, caller: Reader, subscription_id: SubscriptionId) -> Response:
    """Show a subscription with its blocks as they stand in the database, who holds it, what it uses and what uses it."""
    del caller
    async with context.transaction() as session:
        found = await subscriptions.show(session, subscription_id)
    own = {one.name: getattr(found, one.name) for one in fields(found)}
    summary, neighbours = own.pop("summary"), own.pop("neighbours")
    shown = {one.name: getattr(summary, one.name) for one in fields(summary)}
    return await answer_document({**shown, **own, "uses": neighbours.uses, "in_use_by": neighbours.in_use_by})


def _describe_offer(offer: Offer, descriptions: Mapping[UUID, str]) -> dict[str, Any]:
    item: dict[str, Any] = {"name": offer.name, "description": offer.description}
    if offer.dangerous:
        item["dangerous"] = True
    if not offer.reasons:
        return item
    details: dict[str, Any] = {}
    for reason in offer.reasons:
        details |= reason.details
    for name in ("locked_relations", "unterminated_in_use_by_subscriptions"):
        if name in details:
            details[f"{name}_detail"] = [
                {"subscription_id": one, "subscription_description": descriptions.get(UUID(one), "")}
                for one in details[name]
            ]
    reasons = [{**reason.document(), "detail": reason.words} for reason in offer.reasons]
    return {**item, **details, "reason": offer.reasons[0].key, "reasons": reasons}


def _read_before(written: str) -> UUID | int:
    """Read where a page of a history ends: a process, or the number of a change.

    Raises:
        InvalidQueryError.
    """
    found = _BEFORE.fullmatch(written)
    if found is not None:
        return int(found[1])
    try:
        return UUID(written)
    except ValueError:
        raise InvalidQueryError("before must be the id of a process, or change- and a number") from None
