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

# Of some blocks and all below them those that their own subscription does not reach.
_ORPHANS = sql(
    f"""
    WITH RECURSIVE below (id) AS (
        SELECT unnest(CAST(:blocks AS uuid[]))
        UNION
        SELECT r.depends_on_id FROM below JOIN subscription_instance_relations r ON r.in_use_by_id = below.id
    ), candidates AS (
        SELECT id, subscription_id FROM below JOIN subscription_instances ON subscription_instance_id = id
    ), {REACHED.format(rows="candidates")}
    SELECT id, subscription_id FROM candidates WHERE (subscription_id, id) NOT IN (SELECT subscription_id, id FROM reached)
    """  # noqa: S608 - built from constants
)
_USERS = sql(
    """
    SELECT r.depends_on_id, i.subscription_id, s.status = 'terminated' AS ended
      FROM subscription_instance_relations r JOIN subscription_instances i ON i.subscription_instance_id = r.in_use_by_id
           JOIN subscriptions s ON s.subscription_id = i.subscription_id
     WHERE r.depends_on_id = ANY(:blocks) AND NOT r.in_use_by_id = ANY(:blocks)
    UNION ALL
    SELECT r.depends_on_id, r.subscription_id, s.status = 'terminated'
      FROM subscription_roots r JOIN subscriptions s USING (subscription_id)
     WHERE r.depends_on_id = ANY(:blocks)
    """
)
# The relations are deleted as well: left to the foreign key they would go too late for other blocks that go.
_DELETE = sql(
    """
    WITH RECURSIVE kept (id) AS (
        SELECT unnest(CAST(:shown AS uuid[]))
        UNION
        SELECT r.depends_on_id FROM kept JOIN subscription_instance_relations r ON r.in_use_by_id = kept.id
    ), unwanted AS (
        SELECT unnest(CAST(:orphans AS uuid[])) AS id EXCEPT SELECT id FROM kept
    ), unlinked AS (
        DELETE FROM subscription_instance_relations WHERE in_use_by_id IN (SELECT id FROM unwanted)
    )
    DELETE FROM subscription_instances WHERE subscription_instance_id IN (SELECT id FROM unwanted)
    """
)


def delete_orphans(connection: Connection, blocks: Collection[UUID]) -> dict[UUID, UUID]:
    """Delete the orphans among some blocks and all below them: blocks that stand nowhere in their own subscriptions.

    Orphans that terminated subscriptions still show are kept for these, with all below them.

    Returns:
        The orphans, each with its owner, deleted or kept.

    Raises:
        ConfigurationError: a subscription that is not terminated uses one of them.
    """
    orphans = {row.id: row.subscription_id for row in connection.execute(_ORPHANS, {"blocks": list(blocks)})}
    shown: set[UUID] = set()
    for block, user, ended in connection.execute(_USERS, {"blocks": list(orphans)}):
        # What is kept for terminated ones may itself refer to something of the same subscription: that is kept with it.
        if not ended and user != orphans[block]:
            raise ConfigurationError(
                f"the block {block} of the subscription {orphans[block]} would be deleted, but the subscription {user} uses it:"
                " a workflow must change that first"
            )
        shown.add(block)
    connection.execute(_DELETE, {"orphans": list(orphans), "shown": list(shown)})
    return orphans
