"""The histories of subscriptions, as migrations read and write them.

Nobody but a migration changes subscriptions outside a process; the author of such a change is ``migration``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    type_coerce,
    update,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import InstrumentedAttribute

from orchestrator.db.tables import SubscriptionChangeRow, SubscriptionRow
from orchestrator.types import JSON

AUTHOR = "migration"
"""Who has changed a subscription, when a migration did."""

BATCH = 500
"""Subscriptions whose values and histories are in memory at once."""

Changes = dict[str, list[JSON]]
"""Path -> old and new value."""


def hold_still(connection: Connection) -> None:
    """Let no step lock or save a subscription until the migration has committed: what it reads must be what it changes.

    Steps lock rows of the first table before those of all others, the catalogue's last. So whoever is going to lock a row that a
    step may need calls this before; and the lock is one that rows locked by a mere ``SELECT`` have to wait for, too.
    """
    connection.execute(
        sql(
            "LOCK TABLE subscriptions, subscription_instances, subscription_roots, subscription_instance_relations"
            " IN EXCLUSIVE MODE"
        )
    )


def batches(subscriptions: Iterable[UUID]) -> Iterator[list[UUID]]:
    """Subscriptions in groups that fit into memory."""
    every = sorted(set(subscriptions))
    for start in range(0, len(every), BATCH):
        yield every[start : start + BATCH]


def among(column: InstrumentedAttribute[UUID], ids: Iterable[UUID]) -> ColumnElement[bool]:
    """Like ``IN``, with one parameter however many there are."""
    return column == any_(bindparam(None, list(ids), ARRAY(PG_UUID(as_uuid=True))))


class Told:
    """What a subscription's history says that its values are.

    Args:
        values: path -> value; what is ``None`` has no entry.
    """

    def __init__(self, values: Mapping[str, JSON]) -> None:
        self.values = values
        self._places: dict[str, list[str]] = {}
        self._filled: set[str] = set()
        for path, value in values.items():
            if isinstance(value, str):
                self._places.setdefault(value, []).append(path)
            parent = path.rpartition(".")[0]
            while parent and parent not in self._filled:
                self._filled.add(parent)
                parent = parent.rpartition(".")[0]

    def places(self, block: UUID | str) -> Sequence[str]:
        """The paths that have a block's id as their value: where the block stands."""
        return sorted(self._places.get(str(block), ()))

    def is_filled(self, path: str) -> bool:
        """Whether there is anything below a path."""
        return path in self._filled

    def place(self, block: UUID) -> str:
        """The path below which a block's values are.

        A block that stands in several places has its values in one of them only; one that stands nowhere in its own subscription,
        but below another's block, has a path of its own.
        """
        places = self.places(block)
        return next(filter(self.is_filled, places), places[0] if places else own_path(block))


def own_path(block: UUID | str) -> str:
    """The path of a block that stands only below blocks of somebody else's."""
    return f"blocks.{block}"


def told_of(connection: Connection, subscriptions: Iterable[UUID]) -> dict[UUID, Told]:
    """What the histories of these subscriptions add up to."""
    ids = list(subscriptions)
    found: dict[UUID, dict[str, JSON]] = {one: {} for one in ids}
    entry = func.jsonb_each(SubscriptionChangeRow.changes).table_valued("key", "value", joins_implicitly=True)
    owner = SubscriptionChangeRow.subscription_id
    for subscription, path, value in connection.execute(
        select(owner, type_coerce(entry.c.key, Text()), type_coerce(entry.c.value, JSONB())[1])
        .where(among(owner, ids))
        .order_by(SubscriptionChangeRow.change_id)
    ):
        if value is None:
            found[subscription].pop(path, None)
        else:
            found[subscription][path] = value
    return {subscription: Told(values) for subscription, values in found.items()}


_STRAY = sql(
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


def strays(connection: Connection, blocks: Iterable[UUID]) -> dict[UUID, UUID]:
    """Which of these blocks their own subscriptions no longer have, each with its owner.

    They are kept for terminated subscriptions that still show them, and are in no history any more.
    """
    wanted = list(blocks)
    rows = connection.execute(_STRAY, {"blocks": wanted}).all() if wanted else ()
    return {row.subscription_instance_id: row.subscription_id for row in rows}


def moved(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> Changes:
    """The change that leads from some values to others, in the order of their paths."""
    paths = sorted({*before, *after})
    return {path: [before.get(path), after.get(path)] for path in paths if before.get(path) != after.get(path)}


def write_down(connection: Connection, changes: Mapping[UUID, Changes], note: str) -> None:
    """Raise the versions of subscriptions, and append to their histories what has changed."""
    raised = connection.execute(
        update(SubscriptionRow)
        .where(among(SubscriptionRow.subscription_id, changes))
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
                    "changes": changes[subscription],
                    "note": note,
                }
                for subscription, version in raised
            ],
        )
