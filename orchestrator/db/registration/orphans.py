"""Deleting blocks that their subscriptions no longer have."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy import text as sql

from orchestrator.errors import ConfigurationError

_ORPHANS = sql(
    """
    WITH RECURSIVE owner AS (
        SELECT DISTINCT subscription_id FROM subscription_instances WHERE subscription_instance_id = ANY(:blocks)
    ), reached (subscription_id, id) AS (
        SELECT r.subscription_id, r.depends_on_id FROM subscription_roots r JOIN owner USING (subscription_id)
        UNION
        SELECT reached.subscription_id, r.depends_on_id
          FROM reached JOIN subscription_instance_relations r ON r.in_use_by_id = reached.id
    )
    SELECT i.subscription_instance_id, i.subscription_id FROM subscription_instances i
     WHERE i.subscription_instance_id = ANY(:blocks)
       AND NOT EXISTS (SELECT FROM reached WHERE reached.subscription_id = i.subscription_id
                                             AND reached.id = i.subscription_instance_id)
    """
)
_BELOW = sql(
    """
    WITH RECURSIVE below (id) AS (
        SELECT unnest(CAST(:blocks AS uuid[]))
        UNION
        SELECT r.depends_on_id FROM below JOIN subscription_instance_relations r ON r.in_use_by_id = below.id
    )
    SELECT id FROM below
    """
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
# First the relations: left to the foreign key they would go too late for other blocks that go.
_UNLINK = sql("DELETE FROM subscription_instance_relations WHERE in_use_by_id = ANY(:blocks)")
_DELETE = sql("DELETE FROM subscription_instances WHERE subscription_instance_id = ANY(:blocks)")


def delete_orphans(connection: Connection, blocks: Collection[UUID]) -> dict[UUID, UUID]:
    """Delete the orphans among some blocks and all below them: blocks that stand nowhere in their own subscriptions.

    Orphans that terminated subscriptions still show are kept for these.

    Returns:
        The orphans, each with its owner, deleted or kept.

    Raises:
        ConfigurationError: a subscription that is not terminated uses one of them.
    """
    gone = _find_orphans(connection, _add_descendants(connection, blocks))
    shown: set[UUID] = set()
    for block, user, ended in connection.execute(_USERS, {"blocks": list(gone)}).all() if gone else ():
        # What is kept for terminated ones may itself refer to something of the same subscription: that is kept with it.
        if not ended and user != gone[block]:
            raise ConfigurationError(
                f"the block {block} of the subscription {gone[block]} would be deleted, but the subscription {user} uses it: a"
                " workflow must change that first"
            )
        shown.add(block)
    unwanted = list(gone.keys() - _add_descendants(connection, shown))
    connection.execute(_UNLINK, {"blocks": unwanted})
    connection.execute(_DELETE, {"blocks": unwanted})
    return gone


def _find_orphans(connection: Connection, blocks: Collection[UUID]) -> dict[UUID, UUID]:
    """Return those of some blocks that their own subscriptions no longer have, each with its owner."""
    rows = connection.execute(_ORPHANS, {"blocks": list(blocks)}).all() if blocks else ()
    return {row.subscription_instance_id: row.subscription_id for row in rows}


def _add_descendants(connection: Connection, blocks: Collection[UUID]) -> set[UUID]:
    """Return some blocks and all that stand in their fields."""
    return set(connection.scalars(_BELOW, {"blocks": list(blocks)})) if blocks else set()
