"""What forms ask the catalogue for: the products of a workflow, and subscriptions to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import ProductRow, ProductWorkflowRow, SubscriptionRow, WorkflowRow


async def of_workflow(session: AsyncSession, workflow: str) -> list[tuple[UUID, str]]:
    """The active products that have a workflow, with their names, by name."""
    rows = await session.execute(
        select(ProductRow.product_id, ProductRow.name)
        .join(ProductWorkflowRow, ProductWorkflowRow.product_id == ProductRow.product_id)
        .join(WorkflowRow, WorkflowRow.workflow_id == ProductWorkflowRow.workflow_id)
        .where(WorkflowRow.name == workflow, WorkflowRow.deleted_at.is_(None), ProductRow.status == "active")
        .order_by(ProductRow.name)
    )
    return [(row.product_id, row.name) for row in rows]


async def subscriptions_of_types(
    session: AsyncSession, *, product_types: Sequence[str], statuses: Sequence[str], only_in_sync: bool, limit: int
) -> list[tuple[UUID, str]]:
    """The newest subscriptions of products of these types (or of all) in these statuses, with their descriptions."""
    query = select(SubscriptionRow.subscription_id, SubscriptionRow.description).where(
        SubscriptionRow.status.in_(statuses)
    )
    if product_types:
        products = select(ProductRow.product_id).where(ProductRow.product_type.in_(product_types))
        query = query.where(SubscriptionRow.product_id.in_(products))
    if only_in_sync:
        query = query.where(SubscriptionRow.insync)
    rows = await session.execute(
        query.order_by(SubscriptionRow.created_at.desc(), SubscriptionRow.subscription_id).limit(limit)
    )
    return [(row.subscription_id, row.description) for row in rows]


async def version_of(session: AsyncSession, subscription_id: UUID) -> int | None:
    """The version of a subscription; ``None`` when there is none."""
    found: int | None = await session.scalar(
        select(SubscriptionRow.version).where(SubscriptionRow.subscription_id == subscription_id)
    )
    return found
