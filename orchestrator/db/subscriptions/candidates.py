"""Find the subscriptions that a validation of many is to look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import ProductRow, ProductWorkflowRow, WorkflowRow
from orchestrator.targets import Target
from orchestrator.types import ProcessStatus

# By status first: of the finished processes of a workflow there may be a million.
_CANDIDATES = text(
    """
    WITH busy AS MATERIALIZED (
        SELECT touched.subscription_id
          FROM processes p JOIN processes_subscriptions touched USING (process_id)
         WHERE p.status = ANY(:unfinished) AND p.workflow = :workflow
    )
    SELECT subscription_id, insync, subscription_id IN (SELECT subscription_id FROM busy) AS is_busy
      FROM subscriptions WHERE product_id = ANY(:products) AND status = ANY(:statuses)
     ORDER BY subscription_id
    """
)
_UNFINISHED = sorted(status.value for status in ProcessStatus if not (status.is_final or status.is_failure))


@dataclass(frozen=True, slots=True)
class ValidatedProduct:
    """A product, and the workflow that validates its subscriptions; ``None`` when it has none."""

    product_id: UUID
    name: str
    workflow: str | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Subscriptions of the products that one workflow validates.

    Args:
        ready: those that it can look at now.
        out_of_sync: how many a process is changing, or has left half changed.
        busy: how many others an earlier process of this workflow has still to finish with.
    """

    ready: Sequence[UUID]
    out_of_sync: int
    busy: int


async def list_product_types(session: AsyncSession) -> list[str]:
    """Return the types of all products."""
    query = select(ProductRow.product_type).distinct().order_by(ProductRow.product_type)
    return list(await session.scalars(query))


async def list_validated_products(session: AsyncSession, product_type: str | None) -> list[ValidatedProduct]:
    """Return the products of a type, or all, by name; retired ones as well, because their subscriptions live on."""
    links = (
        select(ProductWorkflowRow.product_id, WorkflowRow.name.label("workflow"))
        .join(WorkflowRow, WorkflowRow.workflow_id == ProductWorkflowRow.workflow_id)
        .where(ProductWorkflowRow.target == Target.VALIDATE.value, WorkflowRow.deleted_at.is_(None))
        .subquery()
    )
    query = select(ProductRow.product_id, ProductRow.name, links.c.workflow).outerjoin(
        links, links.c.product_id == ProductRow.product_id
    )
    if product_type is not None:
        query = query.where(ProductRow.product_type == product_type)
    return [ValidatedProduct(*row) for row in await session.execute(query.order_by(ProductRow.name))]


async def find_candidates(
    session: AsyncSession, workflow: str, products: Collection[UUID], statuses: Collection[str]
) -> Candidates:
    """Find the subscriptions of these products in these statuses for a workflow that validates them."""
    values = {
        "workflow": workflow,
        "products": list(products),
        "statuses": list(statuses),
        "unfinished": _UNFINISHED,
    }
    rows = (await session.execute(_CANDIDATES, values)).all()
    return Candidates(
        [row.subscription_id for row in rows if row.insync and not row.is_busy],
        sum(not row.insync for row in rows),
        sum(row.insync and row.is_busy for row in rows),
    )
