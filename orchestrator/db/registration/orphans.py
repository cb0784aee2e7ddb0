"""Delete blocks that their subscriptions no longer have."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy import text as sql

from orchestrator.errors import ConfigurationError

REACHED = """
reached (subscription_id, id) AS (
    SELECT subscription_id, depends_on_id FROM subscription_roots WHERE subscription_id IN (SELECT subscription_id FROM {rows})
    UNION
    SELECT reached.subscription_id, r.depends_on_id
      FROM reached JOIN subscription_instance_relations r ON r.in_use_by_id = reached.id
)
"""
"""The blocks that the subscriptions of some rows reach; for a statement that begins with ``WITH RECURSIVE``."""

# Orphans are those of some blocks, and of all below them, that their own subscription does not reach. Users are what shows an
# orphan and is none itself; what they show is kept, with all below it. The relations are deleted as well: left to the foreign key
# they would go too late for other blocks that go.
_DELETE = sql(
    f"""
    WITH RECURSIVE below (id) AS (
        SELECT unnest(CAST(:blocks AS uuid[]))
        UNION
        SELECT r.depends_on_id FROM below JOIN subscription_instance_relations r ON r.in_use_by_id = below.id
    ), candidates AS (
        SELECT id, subscription_id FROM below JOIN subscription_instances ON subscription_instance_id = id
    ), {REACHED.format(rows="candidates")}, orphans AS (
        SELECT id, subscription_id FROM candidates WHERE (subscription_id, id) NOT IN (SELECT subscription_id, id FROM reached)
    ), users AS (
        SELECT r.depends_on_id AS id, i.subscription_id
          FROM subscription_instance_relations r JOIN subscription_instances i ON i.subscription_instance_id = r.in_use_by_id
         WHERE r.depends_on_id IN (SELECT id FROM orphans) AND r.in_use_by_id NOT IN (SELECT id FROM orphans)
        UNION ALL
        SELECT depends_on_id, subscription_id FROM subscription_roots WHERE depends_on_id IN (SELECT id FROM orphans)
    ), kept (id) AS (
        SELECT id FROM users
        UNION
        SELECT r.depends_on_id FROM kept JOIN subscription_instance_relations r ON r.in_use_by_id = kept.id
    ), unwanted AS (
        SELECT id FROM orphans EXCEPT SELECT id FROM kept
    ), unlinked AS (
        DELETE FROM subscription_instance_relations WHERE in_use_by_id IN (SELECT id FROM unwanted)
    ), deleted AS (
        DELETE FROM subscription_instances WHERE subscription_instance_id IN (SELECT id FROM unwanted)
    )
    SELECT o.id, o.subscription_id AS owner,
           (SELECT u.subscription_id FROM users u JOIN subscriptions s USING (subscription_id)
             WHERE u.id = o.id AND u.subscription_id <> o.subscription_id AND s.status <> 'terminated' LIMIT 1) AS live_user
      FROM orphans o
    """  # noqa: S608 - built from constants
)


def delete_orphans(connection: Connection, blocks: Collection[UUID]) -> dict[UUID, UUID]:
    """Delete the orphans among some blocks and all below them: blocks that stand nowhere in their own subscriptions.

    Orphans that terminated subscriptions still show are kept for these, with all below them; so is what the kept ones show of
    their own subscription.

    Returns:
        The orphans, each with its owner, deleted or kept.

    Raises:
        ConfigurationError: a subscription that is not terminated uses one of them.
    """
    orphans = connection.execute(_DELETE, {"blocks": list(blocks)}).all()
    for block, owner, user in orphans:
        if user is not None:
            raise ConfigurationError(
                f"the block {block} of the subscription {owner} would be deleted, but the subscription {user} uses it:"
                " a workflow must change that first"
            )
    return {block: owner for block, owner, _ in orphans}
