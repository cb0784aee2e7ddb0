"""Read which blocks use a block directly. For subscriptions see :mod:`orchestrator.db.subscriptions.neighbours`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection


@dataclass(frozen=True, slots=True)
class BlockReference:
    """Another block: the values by which people recognize it."""

    subscription_instance_id: UUID
    name: str
    label: str | None
    owner_subscription_id: UUID


_BLOCK_RELATIONS = """
SELECT DISTINCT i.subscription_instance_id, b.name, i.label, i.subscription_id AS owner_subscription_id
  FROM subscription_instance_relations r
       JOIN subscription_instances i ON i.subscription_instance_id = r.{other}
       JOIN product_blocks b USING (product_block_id)
 WHERE r.{this} = $1
 ORDER BY b.name, i.subscription_instance_id
"""


async def list_blocks_using(session: AsyncSession, block_id: UUID) -> list[BlockReference]:
    """Return the blocks that have this one in a field."""
    return await _list_related(session, block_id, other="in_use_by_id", this="depends_on_id")


async def list_blocks_used_by(session: AsyncSession, block_id: UUID) -> list[BlockReference]:
    """Return the blocks that this one has in its fields."""
    return await _list_related(session, block_id, other="depends_on_id", this="in_use_by_id")


async def _list_related(session: AsyncSession, block_id: UUID, **columns: str) -> list[BlockReference]:
    connection = await get_connection(session)
    rows = await connection.exec_driver_sql(_BLOCK_RELATIONS.format(**columns), (block_id,))
    return [BlockReference(*tuple(row)) for row in rows]


# What stands in a field of a subscription itself is in no block: then the block's own id is given.
_USERS = text(
    """
    SELECT wanted.id AS block_id, users.subscription_id, users.subscription_instance_id
      FROM unnest(CAST(:ids AS uuid[])) wanted(id)
     CROSS JOIN LATERAL (
           SELECT owner.subscription_id, owner.subscription_instance_id
             FROM subscription_instance_relations relation
            CROSS JOIN LATERAL (SELECT subscription_id, subscription_instance_id FROM subscription_instances
                                 WHERE subscription_instance_id = relation.in_use_by_id LIMIT 1) owner
            WHERE relation.depends_on_id BETWEEN wanted.id AND wanted.id
            UNION
           SELECT root.subscription_id, wanted.id FROM subscription_roots root
            WHERE root.depends_on_id BETWEEN wanted.id AND wanted.id
            LIMIT 1000) users
     ORDER BY users.subscription_id, users.subscription_instance_id
    """
)


async def read_users(session: AsyncSession, block_ids: Sequence[UUID]) -> dict[UUID, list[tuple[UUID, UUID]]]:
    """Return for each block who has it in a field, a thousand at most: subscriptions with their blocks, in one statement."""
    found: dict[UUID, list[tuple[UUID, UUID]]] = {one: [] for one in block_ids}
    for row in await session.execute(_USERS, {"ids": list(block_ids)}):
        found[row.block_id].append((row.subscription_id, row.subscription_instance_id))
    return found
