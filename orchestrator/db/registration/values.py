"""What subscriptions hold, changed by migrations. Each change raises the subscription's version and is written down.

Nobody but a migration changes subscriptions outside a process; the author of such a change is ``migration``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Text,
    any_,
    bindparam,
    func,
    insert,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.tables import (
    SubscriptionChangeRow,
    SubscriptionInstanceRow,
    SubscriptionRow,
)
from orchestrator.types import JSON

AUTHOR = "migration"
"""Who has changed a subscription, when a migration did."""

_BATCH = 500
"""Subscriptions whose history is read at once."""

_Changes = dict[str, list[JSON]]


def hold_still(connection: Connection) -> None:
    """Let no step save a subscription until the migration has committed: what it reads and what it changes must be the same.

    Steps lock rows of the first table before those of the second, and so must we.
    """
    connection.execute(text("LOCK TABLE subscriptions, subscription_instances IN SHARE ROW EXCLUSIVE MODE"))


def count_values(connection: Connection, blocks: Iterable[UUID], name: str) -> int:
    """How many blocks in subscriptions have a value of this name; ``null`` is none."""
    has = (_among(SubscriptionInstanceRow.product_block_id, blocks), _text_of(name).is_not(None))
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


def fill(connection: Connection, block: UUID, name: str, value: JSON) -> None:
    """Give blocks of a kind a value where they have none."""
    _change(
        connection,
        (SubscriptionInstanceRow.product_block_id == block, _text_of(name).is_(None)),
        SubscriptionInstanceRow.resources.op("||")(bindparam("value", {name: value}, JSONB())),
        lambda _: {name: [None, value]},
        f"a migration has filled in the resource type {name}",
    )


def _change(
    connection: Connection,
    condition: Sequence[ColumnElement[bool]],
    resources: ColumnElement[Any],
    describe: Callable[[dict[str, JSON]], _Changes],
    note: str,
) -> None:
    hold_still(connection)
    row = SubscriptionInstanceRow
    found = connection.execute(
        select(row.subscription_instance_id, row.subscription_id, row.resources).where(*condition)
    ).all()
    connection.execute(update(row).where(*condition).values(resources=resources))
    touched: dict[UUID, list[tuple[UUID, dict[str, JSON]]]] = {}
    for instance, subscription, held in found:
        touched.setdefault(subscription, []).append((instance, held))
    owners = sorted(touched)
    for start in range(0, len(owners), _BATCH):
        batch = owners[start : start + _BATCH]
        changes: dict[UUID, _Changes] = {one: {} for one in batch}
        for subscription, told in _explained(connection, batch).items():
            for instance, held in touched[subscription]:
                place = _place(told, instance)
                pairs = {f"{place}.{name}": pair for name, pair in describe(held).items()}
                changes[subscription].update({path: [old, new] for path, (old, new) in pairs.items() if old != new})
        _write_down(connection, batch, changes, note)


def _write_down(
    connection: Connection, subscriptions: Iterable[UUID], changes: dict[UUID, _Changes], note: str
) -> None:
    raised = connection.execute(
        update(SubscriptionRow)
        .where(_among(SubscriptionRow.subscription_id, subscriptions))
        .values(version=SubscriptionRow.version + 1, updated_at=func.now())
        .returning(SubscriptionRow.subscription_id, SubscriptionRow.version)
    ).all()
    if raised:
        connection.execute(
            insert(SubscriptionChangeRow),
            [
                {
                    "subscription_id": subscription,
                    "version": version,
                    "author": AUTHOR,
                    "changes": changes.get(subscription, {}),
                    "note": note,
                }
                for subscription, version in raised
            ],
        )


def _explained(connection: Connection, subscriptions: Iterable[UUID]) -> dict[UUID, dict[str, JSON]]:
    """What each subscription's history says that its values are: path -> value."""
    ids = list(subscriptions)
    told: dict[UUID, dict[str, JSON]] = {one: {} for one in ids}
    entry = func.jsonb_each(SubscriptionChangeRow.changes).table_valued("key", "value", joins_implicitly=True)
    owner = SubscriptionChangeRow.subscription_id
    for subscription, path, value in connection.execute(
        select(owner, type_coerce(entry.c.key, Text()), type_coerce(entry.c.value, JSONB())[1])
        .where(_among(owner, ids))
        .order_by(SubscriptionChangeRow.change_id)
    ):
        told[subscription][path] = value
    return told


def _place(told: Mapping[str, JSON], block: UUID) -> str:
    """The path of a block, which in the history has the block's id as its value.

    A block that stands in several places has its values in one of them only; one that stands nowhere in its own subscription,
    but below another's block, has a path of its own.
    """
    places = sorted(path for path, value in told.items() if value == str(block))
    with_values = [place for place in places if any(path.startswith(f"{place}.") for path in told)]
    return (with_values or places or [f"blocks.{block}"])[0]


def _holding(blocks: Iterable[UUID], name: str) -> tuple[ColumnElement[bool], ...]:
    return (
        _among(SubscriptionInstanceRow.product_block_id, blocks),
        SubscriptionInstanceRow.resources.bool_op("?")(bindparam("name", name, Text())),
    )


def _text_of(name: str) -> ColumnElement[str]:
    return SubscriptionInstanceRow.resources.op("->>", return_type=Text())(bindparam(None, name, Text()))


def _among(column: InstrumentedAttribute[UUID], ids: Iterable[UUID]) -> ColumnElement[bool]:
    """Like ``IN``, with one parameter however many there are."""
    return column == any_(bindparam(None, list(ids), ARRAY(PG_UUID(as_uuid=True))))
