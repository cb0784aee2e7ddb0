"""Write to the histories of subscriptions in migrations.

Only migrations change subscriptions outside a process; the author of such a change is ``migration``. Entries that exist are
never rewritten: they name blocks by their ids (see :mod:`orchestrator.db.subscriptions.change_keys`), and values and fields by
the names that these had at the time.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection
from sqlalchemy import text as sql

AUTHOR = "migration"
"""Who has changed a subscription, when a migration did."""

_APPEND = """
, merged AS (
    SELECT subscription_id, jsonb_object_agg(key, jsonb_build_array(old, new)) AS changes
      FROM entries WHERE old IS DISTINCT FROM new GROUP BY subscription_id
), raised AS (
    UPDATE subscriptions SET version = version + 1, updated_at = now()
     WHERE subscription_id IN (SELECT subscription_id FROM touched)
    RETURNING subscription_id, version
)
INSERT INTO subscription_changes (subscription_id, version, author, changes, note)
SELECT subscription_id, version, :author, coalesce(changes, '{}'), :note FROM raised LEFT JOIN merged USING (subscription_id)
"""


def lock_subscriptions(connection: Connection) -> None:
    """Keep steps from locking and saving subscriptions until the migration has committed: it must change what it has read.

    Steps lock rows of the first table before those of all others, the catalogue's last. So a helper calls this before it locks
    a row that a step may need; and the lock is one that rows locked by a mere ``SELECT`` have to wait for, too.
    """
    connection.execute(
        sql(
            "LOCK TABLE subscriptions, subscription_instances, subscription_roots, subscription_instance_relations"
            " IN EXCLUSIVE MODE"
        )
    )


def change_subscriptions(connection: Connection, change: str, parameters: Mapping[str, object], note: str) -> None:
    """Change subscriptions in one statement that raises their versions and appends to their histories.

    Args:
        change: the statement's ``WITH``, of constants only. It ends with two queries: ``touched (subscription_id)`` and ``entries
            (subscription_id, key, old, new)``, the values as ``jsonb``.
    """
    connection.execute(sql(change + _APPEND), {**parameters, "author": AUTHOR, "note": note})
