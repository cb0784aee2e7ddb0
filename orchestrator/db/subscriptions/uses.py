"""Read where blocks of subscriptions stand in others: what must still hold for these when the blocks have changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection

# Written as in neighbours.py, for the reasons that are given there.
_USES = """
SELECT own.subscription_id, owner.status, own.subscription_instance_id, block.name, users.field, users.parent,
       product.name AS product, s.status AS user_status,
       (array_agg(s.subscription_id ORDER BY s.subscription_id))[1] AS user_id, count(*) AS number
  FROM subscription_instances own
  JOIN subscriptions owner USING (subscription_id)
  JOIN product_blocks block ON block.product_block_id = own.product_block_id
 CROSS JOIN LATERAL (
       SELECT other.subscription_id, r.field, kind.name AS parent
         FROM subscription_instance_relations r
        CROSS JOIN LATERAL (SELECT subscription_id, product_block_id FROM subscription_instances
                             WHERE subscription_instance_id = r.in_use_by_id LIMIT 1) other
         JOIN product_blocks kind USING (product_block_id)
        WHERE r.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
        UNION ALL
       SELECT root.subscription_id, root.field, NULL FROM subscription_roots root
        WHERE root.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
       OFFSET 0) users
 CROSS JOIN LATERAL (SELECT subscription_id, status, product_id FROM subscriptions
                      WHERE subscription_id = users.subscription_id LIMIT 1) s
  JOIN products product ON product.product_id = s.product_id
 WHERE own.subscription_id = ANY($1::uuid[]) AND users.subscription_id <> own.subscription_id AND s.status <> 'terminated'
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
 ORDER BY 1, 3, 9
"""


@dataclass(frozen=True, slots=True)
class Use:
    """A block that stands in the same field of one or more other subscriptions, which are not terminated.

    Args:
        subscription_id, status: of the block's owner.
        name: of the product block.
        field: in which it stands: of the product block ``parent``, or of the subscription itself when that is ``None``.
        product, user_status: of the subscriptions that use it.
        user_id: one of these.
        number: how many places there are.
    """

    subscription_id: UUID
    status: str
    block_id: UUID
    name: str
    field: str
    parent: str | None
    product: str
    user_status: str
    user_id: UUID
    number: int


async def list_uses(session: AsyncSession, subscription_ids: Iterable[UUID]) -> list[Use]:
    """Return where blocks of these subscriptions stand in others that are not terminated, in one statement."""
    connection = await get_connection(session)
    return [Use(*tuple(row)) for row in await connection.exec_driver_sql(_USES, (list(subscription_ids),))]
