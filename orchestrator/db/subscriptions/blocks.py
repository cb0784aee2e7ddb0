"""Read which blocks use a block directly. For subscriptions see :mod:`orchestrator.db.subscriptions.neighbours`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection


@dataclass(frozen=True, slots=True)
class BlockReference:
    """Another block: the values by which people recognise it."""

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
