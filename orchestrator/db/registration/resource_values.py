"""The values that blocks in subscriptions hold, changed by migrations: each change is in the subscription's history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy import text as sql

from orchestrator.db.registration.history import change_subscriptions, lock_subscriptions
from orchestrator.db.registration.orphans import REACHED
from orchestrator.engine.state import store_and_read, write_json
from orchestrator.errors import ConfigurationError
from orchestrator.types import JSON

Values = Literal["refuse", "drop"]
"""What happens to values that subscriptions hold: the removal is refused, or drops them."""

_COUNT_VALUES = sql(
    "SELECT count(*) FROM subscription_instances WHERE product_block_id = ANY(:blocks) AND resources ->> :name IS NOT NULL"
)
_COUNT_BLOCKS = sql("SELECT count(*) FROM subscription_instances WHERE product_block_id = :block")

# Blocks that their own subscription no longer has, kept for terminated ones that show them, are in no history.
_CHANGE = f"""
WITH RECURSIVE changed AS (
    UPDATE subscription_instances AS i SET resources = {{resources}}
      FROM subscription_instances AS before
     WHERE before.subscription_instance_id = i.subscription_instance_id AND i.product_block_id = ANY(:blocks) AND {{condition}}
    RETURNING i.subscription_instance_id AS id, i.subscription_id, before.resources AS old, i.resources AS new
), touched AS (
    SELECT DISTINCT subscription_id FROM changed
), {REACHED.format(rows="touched")}, entries AS (
    SELECT subscription_id, id || '.' || name AS key, nullif(old -> name, 'null') AS old, nullif(new -> name, 'null') AS new
      FROM changed JOIN reached USING (subscription_id, id)
           CROSS JOIN unnest(ARRAY[CAST(:name AS text), CAST(:new_name AS text)]) AS name
)
"""  # noqa: S608 - built from constants
_WITH_VALUE = "i.resources || jsonb_build_object(CAST(:name AS text), CAST(:value AS jsonb))"
_WITHOUT = "i.resources - CAST(:name AS text)"


def check_choice(values: Values) -> None:
    """Check that a choice is one of the two.

    Raises:
        ConfigurationError: it is not.
    """
    if values not in {"refuse", "drop"}:
        raise ConfigurationError(f"values is 'refuse' or 'drop', not {values!r}")


def count_values(connection: Connection, blocks: Iterable[UUID], name: str) -> int:
    """Count the blocks in subscriptions that have a value of this name; ``null`` is none."""
    return connection.scalar(_COUNT_VALUES, {"blocks": list(blocks), "name": name}) or 0


def count_blocks(connection: Connection, block: UUID) -> int:
    """Count the blocks of a kind in subscriptions."""
    return connection.scalar(_COUNT_BLOCKS, {"block": block}) or 0


def drop_values(connection: Connection, blocks: Iterable[UUID], name: str) -> None:
    """Delete all values of this name, ``null`` included."""
    _change(connection, blocks, f"a migration has dropped the resource type {name}", _WITHOUT, name=name)


def rename_values(connection: Connection, blocks: Iterable[UUID], old: str, new: str) -> None:
    """Move all values of one name to another."""
    note = f"a migration has renamed the resource type {old} to {new}"
    resources = f"{_WITHOUT} || jsonb_build_object(CAST(:new_name AS text), i.resources -> :name)"
    _change(connection, blocks, note, resources, name=old, new_name=new)


def fill_missing(connection: Connection, block: UUID, name: str, value: JSON, *, overwrite: bool) -> None:
    """Give blocks of a kind a value where they have none, or another one.

    Raises:
        ConfigurationError: the value cannot be stored as JSON.
    """
    _check_storable(name, value)
    _change(
        connection,
        [block],
        f"a migration has filled in the resource type {name}",
        _WITH_VALUE,
        "i.resources -> :name IS DISTINCT FROM CAST(:value AS jsonb)" if overwrite else "i.resources ->> :name IS NULL",
        name=name,
        value=write_json(value),
    )


def replace_stored(connection: Connection, block: UUID, name: str, old: JSON, new: JSON) -> None:
    """Give the blocks of a kind that have a value another one.

    Raises:
        ConfigurationError: the new value cannot be stored as JSON.
    """
    _check_storable(name, new)
    _change(
        connection,
        [block],
        f"a migration has replaced a value of the resource type {name}",
        _WITH_VALUE,
        "i.resources -> :name = CAST(:old AS jsonb)",
        name=name,
        value=write_json(new),
        old=write_json(old),
    )


def _check_storable(name: str, value: JSON) -> None:
    try:
        store_and_read(value, within=1)
    except ValueError as error:
        raise ConfigurationError(f"the value for {name!r} cannot be stored as JSON: {error}") from error


def _change(
    connection: Connection,
    blocks: Iterable[UUID],
    note: str,
    resources: str,
    condition: str = "i.resources ? :name",
    **parameters: str,
) -> None:
    lock_subscriptions(connection)
    statement = _CHANGE.format(resources=resources, condition=condition)
    change_subscriptions(connection, statement, {"blocks": list(blocks), "new_name": None, **parameters}, note)
