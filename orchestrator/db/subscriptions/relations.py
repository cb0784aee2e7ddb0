"""Which subscriptions and blocks use each other, directly."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True)
class SubscriptionReference:
    """Another subscription, as much of it as a person needs to recognise it."""

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    product: str


@dataclass(frozen=True, slots=True)
class BlockReference:
    """Another block, as much of it as a person needs to recognise it."""

    subscription_instance_id: UUID
    name: str
    label: str | None
    owner_subscription_id: UUID


_IN_USE_BY = """
SELECT s.subscription_id, s.description, s.status, s.insync, p.name AS product
  FROM subscriptions s JOIN products p USING (product_id)
 WHERE s.subscription_id IN (
        SELECT user_block.subscription_id
          FROM subscription_instances i
               JOIN subscription_instance_relations r ON r.depends_on_id = i.subscription_instance_id
               JOIN subscription_instances user_block ON user_block.subscription_instance_id = r.in_use_by_id
         WHERE i.subscription_id = $1
        UNION
        SELECT r.subscription_id
          FROM subscription_instances i JOIN subscription_roots r ON r.depends_on_id = i.subscription_instance_id
         WHERE i.subscription_id = $1)
   AND s.subscription_id <> $1
 ORDER BY s.created_at, s.subscription_id
"""

_DEPENDS_ON = """
SELECT s.subscription_id, s.description, s.status, s.insync, p.name AS product
  FROM subscriptions s JOIN products p USING (product_id)
 WHERE s.subscription_id IN (
        SELECT used.subscription_id
          FROM subscription_instances i
               JOIN subscription_instance_relations r ON r.in_use_by_id = i.subscription_instance_id
               JOIN subscription_instances used ON used.subscription_instance_id = r.depends_on_id
         WHERE i.subscription_id = $1
        UNION
        SELECT used.subscription_id
          FROM subscription_roots r JOIN subscription_instances used ON used.subscription_instance_id = r.depends_on_id
         WHERE r.subscription_id = $1)
   AND s.subscription_id <> $1
 ORDER BY s.created_at, s.subscription_id
"""

_BLOCK_RELATIONS = """
SELECT DISTINCT i.subscription_instance_id, b.name, i.label, i.subscription_id AS owner_subscription_id
  FROM subscription_instance_relations r
       JOIN subscription_instances i ON i.subscription_instance_id = r.{other}
       JOIN product_blocks b USING (product_block_id)
 WHERE r.{this} = $1
 ORDER BY b.name, i.subscription_instance_id
"""


async def subscriptions_using(session: AsyncSession, subscription_id: UUID) -> list[SubscriptionReference]:
    """The other subscriptions that refer directly to a block of this one, oldest first, whatever their status."""
    return await _references(session, _IN_USE_BY, subscription_id)


async def subscriptions_used_by(session: AsyncSession, subscription_id: UUID) -> list[SubscriptionReference]:
    """The other subscriptions to whose blocks this one refers directly, oldest first, whatever their status."""
    return await _references(session, _DEPENDS_ON, subscription_id)


async def blocks_using(session: AsyncSession, block_id: UUID) -> list[BlockReference]:
    """The blocks that have this one in a field."""
    return await _block_references(
        session, _BLOCK_RELATIONS.format(other="in_use_by_id", this="depends_on_id"), block_id
    )


async def blocks_used_by(session: AsyncSession, block_id: UUID) -> list[BlockReference]:
    """The blocks that this one has in its fields."""
    return await _block_references(
        session, _BLOCK_RELATIONS.format(other="depends_on_id", this="in_use_by_id"), block_id
    )


async def _references(session: AsyncSession, statement: str, subscription_id: UUID) -> list[SubscriptionReference]:
    rows = await (await session.connection()).exec_driver_sql(statement, (subscription_id,))
    return [
        SubscriptionReference(row.subscription_id, row.description, row.status, row.insync, row.product) for row in rows
    ]


async def _block_references(session: AsyncSession, statement: str, block_id: UUID) -> list[BlockReference]:
    rows = await (await session.connection()).exec_driver_sql(statement, (block_id,))
    return [
        BlockReference(row.subscription_instance_id, row.name, row.label, row.owner_subscription_id) for row in rows
    ]
