"""Rename or drop a field that holds blocks: the blocks in subscriptions are moved, or deleted.

The catalogue does not know these fields, only rows of subscriptions do, and their histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy import text as sql

from orchestrator.db.registration.history import change_subscriptions, lock_subscriptions
from orchestrator.db.registration.lookup import BLOCK, PRODUCT, check_name, check_names, find_id, find_ids
from orchestrator.db.registration.orphans import delete_orphans
from orchestrator.db.registration.resource_values import Values, check_choice
from orchestrator.errors import ConfigurationError


def rename_block_field(
    connection: Connection,
    old: str,
    new: str,
    *,
    block: str | None = None,
    products: Iterable[str] | None = None,
    many: bool | None = None,
) -> None:
    """Rename a field that holds blocks, as the code did; the blocks in subscriptions move to the new name.

    Args:
        connection: ``op.get_bind()`` in a migration.
        old, new: names of the field; the same when only ``many`` is different.
        block: the name of the product block that has the field; or
        products: the names of the products whose subscriptions have it: all that share the model.
        many: True when the field becomes a list, False when it becomes a single block; unless given, that does not change.

    Raises:
        ConfigurationError: the block or a product is not known, there are blocks in the field ``new`` already, or several where
            one must stand.
    """
    field = _find_field(connection, old, block, products)
    lock_subscriptions(connection)
    if check_name("field", new) != old:
        taken = field.count(connection, new)
        if taken:
            raise ConfigurationError(
                f"{field.holder} has blocks in its field {new!r} already ({taken}): {old!r} cannot be renamed to that"
            )
    elif many is None:
        raise ConfigurationError(
            f"the field {old!r} has that name already: pass another one, or many= to make it a list or a single block"
        )
    if many is False and (crowded := field.count(connection, old, length=2)):
        raise ConfigurationError(
            f"the field {old!r} of {field.holder} cannot hold one block: there are several in it ({crowded}); take the others"
            " out first, with a workflow"
        )
    note = f"a migration has renamed the field {old} of {field.holder} to {new}"
    parameters = {**field.parameters, "new": new, "many": many}
    change_subscriptions(connection, _RENAME.format(**field.rows), parameters, note)


def drop_block_field(
    connection: Connection,
    name: str,
    *,
    block: str | None = None,
    products: Iterable[str] | None = None,
    values: Values = "refuse",
) -> None:
    """Empty a field that holds blocks, because the code no longer has it.

    Blocks that their subscription then has in no field are deleted, as when a step empties the field. Those that terminated
    subscriptions show are kept.

    Args:
        connection: ``op.get_bind()`` in a migration.
        name: of the field.
        block: the name of the product block that has the field; or
        products: the names of the products whose subscriptions have it: all that share the model.
        values: ``"drop"`` deletes what subscriptions have there.

    Raises:
        ConfigurationError: the block or a product is not known, subscriptions have blocks in the field, or one that would be
            deleted is used by another subscription.
    """
    field = _find_field(connection, name, block, products)
    check_choice(values)
    lock_subscriptions(connection)
    count = field.count(connection, name)
    if count and values == "refuse":
        raise ConfigurationError(
            f"subscriptions have blocks in the field {name!r} of {field.holder} ({count}): values='drop' deletes these, for good;"
            " if it only got another name, use rename_block_field"
        )
    links = field.execute(connection, _DELETE).all()
    orphans = delete_orphans(connection, {link.depends_on_id for link in links})
    users = [link.subscription_id for link in links]
    parameters = {
        "users": users,
        "subscriptions": [*users, *orphans.values()],
        "prefixes": [*(link.prefix for link in links), *map(str, orphans)],
    }
    change_subscriptions(connection, _FORGET, parameters, f"a migration has dropped the field {name} of {field.holder}")


_OF_BLOCKS = {
    "links": "subscription_instance_relations",
    "key": "in_use_by_id",
    "prefix": "r.in_use_by_id || '/' || CAST(:field AS text)",
    "holders": "subscription_instances",
    "id": "subscription_instance_id",
    "kind": "product_block_id",
}
_OF_SUBSCRIPTIONS = {
    "links": "subscription_roots",
    "key": "subscription_id",
    "prefix": "'/' || CAST(:field AS text)",
    "holders": "subscriptions",
    "id": "subscription_id",
    "kind": "product_id",
}
_HERE = "h.{id} = r.{key} AND h.{kind} = ANY(:kinds) AND r.field = :field"
_COUNT = f"""
SELECT count(*)
  FROM (SELECT FROM {{links}} r JOIN {{holders}} h ON {_HERE} GROUP BY r.{{key}} HAVING count(*) >= :length) crowded
"""  # noqa: S608 - built from constants
_DELETE = f"""
DELETE FROM {{links}} r USING {{holders}} h WHERE {_HERE} RETURNING h.subscription_id, {{prefix}} AS prefix, r.depends_on_id
"""  # noqa: S608 - built from constants

# The last values that histories have for all keys of some blocks, or of some fields of blocks: <holder>/<field>, and in a list
# <holder>/<field>/<position>.
_KNOWN = """
known AS (
    SELECT DISTINCT ON (c.subscription_id, e.key) c.subscription_id, e.key, nullif(e.value -> 1, 'null') AS value
      FROM subscription_changes c CROSS JOIN LATERAL jsonb_each(c.changes) e
     WHERE c.subscription_id IN (SELECT subscription_id FROM moved)
       AND ((c.subscription_id, left(e.key, 36)) IN (SELECT subscription_id, prefix FROM moved)
            OR (c.subscription_id, substring(e.key FROM '^[^/]*/[^/]*')) IN (SELECT subscription_id, prefix FROM moved))
     ORDER BY c.subscription_id, e.key, c.change_id DESC
)
"""

# A field that becomes a list or a single block gets or loses the position.
_RENAME = f"""
WITH moved AS (
    UPDATE {{links}} r SET field = :new, position = CASE WHEN CAST(:many AS boolean) IS FALSE THEN 0 ELSE r.position END
      FROM {{holders}} h WHERE {_HERE}
    RETURNING h.subscription_id, {{prefix}} AS prefix
), touched AS (
    SELECT DISTINCT subscription_id FROM moved
), {_KNOWN}, keys AS (
    SELECT subscription_id, value, key AS old_key, split_part(key, '/', 1) || '/' || :new
           || CASE WHEN CAST(:many AS boolean) IS FALSE OR CAST(:many AS boolean) IS NULL AND position = '' THEN ''
                   ELSE '/' || coalesce(nullif(position, ''), '0') END AS new_key
      FROM known CROSS JOIN LATERAL split_part(key, '/', 3) AS position
     WHERE value IS NOT NULL
), entries AS (
    SELECT subscription_id, key, old, new
      FROM keys CROSS JOIN LATERAL (VALUES (old_key, value, NULL), (new_key, NULL, value)) AS entry (key, old, new)
     WHERE old_key <> new_key
)
"""  # noqa: S608 - built from constants

# A subscription that only loses blocks that its history does not name has not changed.
_FORGET = f"""
WITH moved AS (
    SELECT * FROM unnest(CAST(:subscriptions AS uuid[]), CAST(:prefixes AS text[])) AS moved (subscription_id, prefix)
), {_KNOWN}, entries AS (
    SELECT subscription_id, key, value AS old, CAST(NULL AS jsonb) AS new FROM known WHERE value IS NOT NULL
), touched AS (
    SELECT unnest(CAST(:users AS uuid[])) AS subscription_id UNION SELECT subscription_id FROM entries
)
"""  # noqa: S608 - built from constants


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a product block, or of the subscriptions of some products, and the blocks in it.

    Args:
        holder: names in error texts what has the field.
        parameters: of the statements: the name of the field, and the ids of the product block or of the products.
        rows: the names of tables and columns, which the statements are made of.
    """

    holder: str
    parameters: Mapping[str, object]
    rows: Mapping[str, str]

    def execute(self, connection: Connection, statement: str, **more: object) -> CursorResult[Any]:
        """Execute a statement about the field."""
        return connection.execute(sql(statement.format(**self.rows)), {**self.parameters, **more})

    def count(self, connection: Connection, name: str, *, length: int = 1) -> int:
        """Count the holders that have at least so many blocks in a field of this name."""
        return int(self.execute(connection, _COUNT, field=name, length=length).scalar_one())


def _find_field(connection: Connection, name: str, block: str | None, products: Iterable[str] | None) -> _Field:
    check_name("field", name)
    names = check_names("products", products or ())
    if (block is None) == (not names):
        raise ConfigurationError(
            f"the field {name!r} is either of a product block, block=..., or of subscriptions, products=[...]"
        )
    if block is not None:
        ids = [find_id(connection, BLOCK, block)]
        return _Field(block, {"field": name, "kinds": ids}, _OF_BLOCKS)
    ids = list(find_ids(connection, PRODUCT, names).values())
    return _Field(", ".join(names), {"field": name, "kinds": ids}, _OF_SUBSCRIPTIONS)
