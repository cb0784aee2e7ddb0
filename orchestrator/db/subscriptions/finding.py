"""Find subscriptions by their products and by values of their blocks, and the blocks that use others: what authors ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from orchestrator.db.subscriptions.queries import SubscriptionSummary
from orchestrator.db.tables import (
    ProductBlockRow,
    ProductRow,
    SubscriptionInstanceRelationRow,
    SubscriptionInstanceRow,
    SubscriptionRow,
)
from orchestrator.types import JSON


@dataclass(frozen=True, slots=True)
class UsingBlock:
    """A block that has another one in a field, with its own values.

    Args:
        name: of the product block.
        owner_subscription_id: the subscription that it belongs to, and ``status`` that one's.
        values: by resource type; what is ``None`` is left out.
    """

    subscription_instance_id: UUID
    name: str
    label: str | None
    owner_subscription_id: UUID
    status: str
    values: Mapping[str, JSON]


async def select_subscriptions(
    session: AsyncSession,
    product_type: str | None,
    block: str | None,
    values: Mapping[str, JSON],
    statuses: Sequence[str],
) -> list[SubscriptionSummary]:
    """Return the subscriptions of a product type that have a block with these values, newest first."""
    row = SubscriptionRow
    conditions: list[ColumnElement[bool]] = [row.status.in_(statuses)]
    if product_type is not None:
        conditions.append(ProductRow.product_type == product_type)
    if block is not None or values:
        own = SubscriptionInstanceRow
        # By the index on the block's subscription, or that on its kind: whichever finds fewer.
        query = select(own.subscription_id).where(own.resources.contains(dict(values)))
        if block is not None:
            query = query.join(ProductBlockRow).where(ProductBlockRow.name == block)
        conditions.append(row.subscription_id.in_(query))
    found = await session.execute(
        select(
            row.subscription_id,
            row.description,
            row.status,
            row.insync,
            row.customer_id,
            ProductRow.name.label("product"),
            row.note,
            row.version,
            row.start_date,
            row.end_date,
            row.created_at,
            row.updated_at,
            row.locked_by,
        )
        .join(ProductRow, ProductRow.product_id == row.product_id)
        .where(*conditions)
        .order_by(row.created_at.desc(), row.subscription_id)
    )
    return [SubscriptionSummary(**one) for one in found.mappings()]


async def select_blocks_using(
    session: AsyncSession, of: UUID, block: str | None, statuses: Sequence[str]
) -> list[UsingBlock]:
    """Return the blocks that have a block in a field, or any block of a subscription that is not their own."""
    used, using, relation = aliased(SubscriptionInstanceRow), SubscriptionInstanceRow, SubscriptionInstanceRelationRow
    query = (
        select(
            using.subscription_instance_id,
            ProductBlockRow.name,
            using.label,
            using.subscription_id,
            SubscriptionRow.status,
            using.resources,
        )
        .distinct()
        .join(ProductBlockRow, ProductBlockRow.product_block_id == using.product_block_id)
        .join(SubscriptionRow, SubscriptionRow.subscription_id == using.subscription_id)
        .join(relation, relation.in_use_by_id == using.subscription_instance_id)
        .join(used, used.subscription_instance_id == relation.depends_on_id)
        .where(
            or_(used.subscription_instance_id == of, used.subscription_id == of),
            using.subscription_id != of,
            SubscriptionRow.status.in_(statuses),
        )
        .order_by(ProductBlockRow.name, using.subscription_instance_id)
    )
    if block is not None:
        query = query.where(ProductBlockRow.name == block)
    return [UsingBlock(*one) for one in await session.execute(query)]


async def find_product_id(session: AsyncSession, name: str) -> UUID | None:
    """Return the id of the product of this name."""
    found: UUID | None = await session.scalar(select(ProductRow.product_id).where(ProductRow.name == name))
    return found
