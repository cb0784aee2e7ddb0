"""The values that blocks in subscriptions hold, changed by migrations: each change is in the subscription's history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Text, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import JSONB

from orchestrator.db.registration.history import Changes, among, batches, hold_still, strays, told_of, write_down
from orchestrator.db.tables import SubscriptionInstanceRow
from orchestrator.errors import ConfigurationError
from orchestrator.types import JSON

Values = Literal["refuse", "drop"]
"""What becomes of what subscriptions hold: removing its place is refused, or drops it."""


def check_choice(values: Values) -> None:
    """Make sure that it is one of the two.

    Raises:
        ConfigurationError: it is not.
    """
    if values not in {"refuse", "drop"}:
        raise ConfigurationError(f"values is 'refuse' or 'drop', not {values!r}")


def count_values(connection: Connection, blocks: Iterable[UUID], name: str) -> int:
    """How many blocks in subscriptions have a value of this name; ``null`` is none."""
    has = (among(SubscriptionInstanceRow.product_block_id, blocks), _text_of(name).is_not(None))
    return connection.scalar(select(func.count()).select_from(SubscriptionInstanceRow).where(*has)) or 0


def count_blocks(connection: Connection, block: UUID) -> int:
    """How many blocks of a kind there are in subscriptions."""
    of_kind = SubscriptionInstanceRow.product_block_id == block
    return connection.scalar(select(func.count()).select_from(SubscriptionInstanceRow).where(of_kind)) or 0


def drop_values(connection: Connection, blocks: Iterable[UUID], name: str) -> None:
    """Delete all values of this name, ``null`` included."""
    resources = SubscriptionInstanceRow.resources
    _change(
        connection,
        _holding(blocks, name),
        resources.op("-")(bindparam("name", name, Text())),
        lambda held: {name: [held[name], None]},
        f"a migration has dropped the resource type {name}",
    )


def rename(connection: Connection, blocks: Iterable[UUID], old: str, new: str) -> None:
    """Move all values of one name to another."""
    resources = SubscriptionInstanceRow.resources
    _change(
        connection,
        _holding(blocks, old),
        resources.op("-")(bindparam("old", old, Text())).op("||")(
            func.jsonb_build_object(new, resources.op("->")(bindparam("old", old, Text())))
        ),
        lambda held: {old: [held[old], None], new: [None, held[old]]},
        f"a migration has renamed the resource type {old} to {new}",
    )


def fill(connection: Connection, block: UUID, name: str, value: JSON, *, overwrite: bool) -> None:
    """Give blocks of a kind a value where they have none, or another one."""
    resources = SubscriptionInstanceRow.resources
    held = resources.op("->", return_type=JSONB())(bindparam(None, name, Text()))
    other = held.is_distinct_from(bindparam(None, value, JSONB())) if overwrite else _text_of(name).is_(None)
    _change(
        connection,
        (SubscriptionInstanceRow.product_block_id == block, other),
        resources.op("||")(bindparam("value", {name: value}, JSONB())),
        lambda held: {name: [held.get(name), value]},
        f"a migration has filled in the resource type {name}",
    )


def _change(
    connection: Connection,
    condition: Sequence[ColumnElement[bool]],
    resources: ColumnElement[Any],
    describe: Callable[[dict[str, JSON]], Changes],
    note: str,
) -> None:
    hold_still(connection)
    row = SubscriptionInstanceRow
    owners = connection.scalars(select(row.subscription_id).where(*condition).distinct()).all()
    for batch in batches(owners):
        here = (*condition, among(row.subscription_id, batch))
        found = connection.execute(
            select(row.subscription_instance_id, row.subscription_id, row.resources).where(*here)
        ).all()
        connection.execute(update(row).where(*here).values(resources=resources))
        told = told_of(connection, batch)
        placeless = [instance for instance, owner, _ in found if not told[owner].is_filled(told[owner].place(instance))]
        gone = strays(connection, placeless)
        changes: dict[UUID, Changes] = {one: {} for one in batch}
        for instance, subscription, held in found:
            if instance in gone:
                continue
            place = told[subscription].place(instance)
            pairs = {f"{place}.{name}": pair for name, pair in describe(held).items()}
            changes[subscription].update({path: [old, new] for path, (old, new) in pairs.items() if old != new})
        write_down(connection, changes, note)


def _holding(blocks: Iterable[UUID], name: str) -> tuple[ColumnElement[bool], ...]:
    return (
        among(SubscriptionInstanceRow.product_block_id, blocks),
        SubscriptionInstanceRow.resources.bool_op("?")(bindparam("name", name, Text())),
    )


def _text_of(name: str) -> ColumnElement[str]:
    return SubscriptionInstanceRow.resources.op("->>", return_type=Text())(bindparam(None, name, Text()))
