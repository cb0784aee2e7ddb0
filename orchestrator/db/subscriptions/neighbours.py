"""Read what decides whether a workflow may run on a subscription: its own facts, and its neighbours.

"B uses A" when a field of B, or of a block that B owns, holds a block that A owns. A neighbour's own neighbours do not count.

Each question is one statement whose cost grows with the relations of this one subscription, never with the number of all,
whatever the statistics say: every join goes through ``LATERAL … LIMIT 1`` or ``OFFSET 0``, which PostgreSQL does not turn
round, so it has to start from this subscription's rows and look up the next by their index. ``BETWEEN x AND x`` is ``= x``,
but PostgreSQL takes it to be rare: where half of all blocks use the same one, it would read the whole table for any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.engine.usability import SubscriptionFacts
from orchestrator.errors import NotFoundError
from orchestrator.targets import Target

_NEIGHBOURS = """
WITH users AS (
    SELECT DISTINCT found.subscription_id
      FROM subscription_instances own
     CROSS JOIN LATERAL (
           SELECT owner.subscription_id
             FROM subscription_instance_relations relation
            CROSS JOIN LATERAL (SELECT subscription_id FROM subscription_instances
                                 WHERE subscription_instance_id = relation.in_use_by_id LIMIT 1) owner
            WHERE relation.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
            UNION ALL
           SELECT root.subscription_id FROM subscription_roots root
            WHERE root.depends_on_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
           OFFSET 0) found
     WHERE own.subscription_id = :subscription_id AND found.subscription_id <> :subscription_id
), used AS (
    SELECT DISTINCT owner.subscription_id
      FROM (SELECT relation.depends_on_id
              FROM subscription_instances own
             CROSS JOIN LATERAL (
                   SELECT depends_on_id FROM subscription_instance_relations
                    WHERE in_use_by_id BETWEEN own.subscription_instance_id AND own.subscription_instance_id
                   OFFSET 0) relation
             WHERE own.subscription_id = :subscription_id
             UNION ALL
            SELECT depends_on_id FROM subscription_roots WHERE subscription_id = :subscription_id) reference
     CROSS JOIN LATERAL (SELECT subscription_id FROM subscription_instances
                          WHERE subscription_instance_id = reference.depends_on_id LIMIT 1) owner
     WHERE owner.subscription_id <> :subscription_id
)
"""

_CASE = text(
    f"""
    {_NEIGHBOURS}
    SELECT s.product_id, s.customer_id, s.status, s.insync, s.version, s.locked_by, p.name AS product,
           (SELECT status FROM processes WHERE process_id = s.locked_by) AS holder_status,
           ARRAY(SELECT other.subscription_id
                   FROM (SELECT subscription_id FROM users UNION SELECT subscription_id FROM used) neighbour
                  CROSS JOIN LATERAL (SELECT subscription_id, status, insync, locked_by FROM subscriptions
                                       WHERE subscription_id = neighbour.subscription_id LIMIT 1) other
                  WHERE NOT other.insync AND other.status <> 'terminated'
                    AND (CAST(:besides AS uuid) IS NULL OR other.locked_by IS DISTINCT FROM :besides)
                  ORDER BY other.subscription_id) AS locked_relations,
           ARRAY(SELECT other.subscription_id
                   FROM users
                  CROSS JOIN LATERAL (SELECT subscription_id, status FROM subscriptions
                                       WHERE subscription_id = users.subscription_id LIMIT 1) other
                  WHERE other.status <> 'terminated'
                  ORDER BY other.subscription_id) AS unterminated_users,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(w.name, w.description, w.target, w.is_task)), '[]')
              FROM products_workflows link JOIN workflows w USING (workflow_id)
             WHERE link.product_id = s.product_id AND w.deleted_at IS NULL) AS workflows
      FROM subscriptions s JOIN products p USING (product_id)
     WHERE s.subscription_id = :subscription_id
    """  # noqa: S608 - built from constants
).columns(workflows=JSONB)

_RELATED = text(
    f"""
    {_NEIGHBOURS}
    SELECT direction.uses_it, other.*, p.name AS product
      FROM (SELECT subscription_id, true AS uses_it FROM users
             UNION ALL
            SELECT subscription_id, false FROM used) direction
     CROSS JOIN LATERAL (SELECT subscription_id, description, status, insync, product_id, created_at FROM subscriptions
                          WHERE subscription_id = direction.subscription_id LIMIT 1) other
      JOIN products p USING (product_id)
     ORDER BY other.created_at, other.subscription_id
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class LinkedWorkflow:
    """A workflow of a product, as the database has it."""

    name: str
    description: str
    target: Target
    is_task: bool


@dataclass(frozen=True, slots=True)
class Case:
    """All that decides which workflows may run on a subscription, as it was at one moment.

    Args:
        product: the name of the subscription's product.
        customer_id, version: of the subscription.
        workflows: those of the product that were not removed, by name.
    """

    facts: SubscriptionFacts
    product: str
    customer_id: str
    version: int
    workflows: dict[str, LinkedWorkflow]


@dataclass(frozen=True, slots=True)
class SubscriptionReference:
    """Another subscription: the values by which people recognize it."""

    subscription_id: UUID
    description: str
    status: str
    insync: bool
    product: str


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The subscriptions whose blocks one uses, and those that use its blocks; oldest first, terminated ones, too."""

    uses: tuple[SubscriptionReference, ...]
    in_use_by: tuple[SubscriptionReference, ...]


_NAME_ROWS = text(
    f"""
    {_NEIGHBOURS}, named AS (
        SELECT CAST(:subscription_id AS uuid) AS id, true AS is_own
         UNION ALL
        SELECT subscription_id, false FROM (SELECT subscription_id FROM users UNION SELECT subscription_id FROM used) neighbour
    )
    SELECT id, is_own FROM named
    """  # noqa: S608 - built from constants
)

# Row by row in the order of the ids, whichever of the two locks a row gets, so that nobody who locks like this can end in a
# deadlock. Subqueries with a locking clause stay as they are written.
_LOCK_ROWS = text(
    """
    SELECT own.subscription_id, neighbour.subscription_id AS neighbour_id
      FROM (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:are_own AS bool[])) AS named(id, is_own) ORDER BY id) named
      LEFT JOIN LATERAL (SELECT subscription_id FROM subscriptions s
                          WHERE s.subscription_id = named.id AND named.is_own FOR NO KEY UPDATE) own ON true
      LEFT JOIN LATERAL (SELECT subscription_id FROM subscriptions s
                          WHERE s.subscription_id = named.id AND NOT named.is_own AND s.status <> 'terminated'
                            FOR SHARE) neighbour ON true
    """
)


async def hold_still(session: AsyncSession, subscription_ids: Sequence[UUID]) -> None:
    """Keep others from locking these subscriptions, or a neighbour of them, until the transaction ends.

    Of two transactions that do this for two neighbours one waits for the other's commit, and then reads what it has done.
    """
    rows: dict[UUID, bool] = {}
    for one in subscription_ids:
        for row in await session.execute(_NAME_ROWS, {"subscription_id": one}):
            rows[row.id] = rows.get(row.id, False) or row.is_own
    await session.execute(_LOCK_ROWS, {"ids": list(rows), "are_own": list(rows.values())})


async def read_case(session: AsyncSession, subscription_id: UUID, *, besides: UUID | None = None) -> Case:
    """Return the facts about a subscription and its product's workflows, in one statement.

    Args:
        besides: a process; neighbours that it holds do not count as out of sync.

    Raises:
        NotFoundError: there is no such subscription.
    """
    row = (await session.execute(_CASE, {"subscription_id": subscription_id, "besides": besides})).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    facts = SubscriptionFacts(
        subscription_id=subscription_id,
        product_id=row.product_id,
        status=row.status,
        insync=row.insync,
        locked_by=row.locked_by,
        holder_status=row.holder_status,
        locked_relations=tuple(row.locked_relations),
        unterminated_users=tuple(row.unterminated_users),
    )
    workflows = {
        name: LinkedWorkflow(name, description, Target(target), is_task)
        for name, description, target, is_task in row.workflows
    }
    return Case(facts, row.product, row.customer_id, row.version, workflows)


async def read_neighbours(session: AsyncSession, subscription_id: UUID) -> Neighbours:
    """Return the subscriptions that a subscription uses and that use it, in one statement."""
    rows = (await session.execute(_RELATED, {"subscription_id": subscription_id})).all()
    return Neighbours(
        uses=tuple(_related(row) for row in rows if not row.uses_it),
        in_use_by=tuple(_related(row) for row in rows if row.uses_it),
    )


def _related(row: Any) -> SubscriptionReference:
    return SubscriptionReference(row.subscription_id, row.description, row.status, row.insync, row.product)
