"""The fields in which blocks stand, when they get another name or go: what stands there moves along, or is deleted.

The catalogue does not know these fields, only rows of subscriptions do, and their histories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause
from sqlalchemy import text as sql

from orchestrator.db.registration.history import Told, batches, hold_still, moved, own_path, told_of, write_down
from orchestrator.db.registration.lookup import (
    BLOCK,
    PRODUCT,
    id_of,
    ids_of,
    one_name,
    require_catalogue,
    several_names,
)
from orchestrator.db.registration.orphans import delete_given_up
from orchestrator.db.registration.resource_values import Values, check_choice
from orchestrator.errors import ConfigurationError
from orchestrator.types import JSON

_Path = tuple[str, ...]


def rename_block_field(
    connection: Connection,
    old: str,
    new: str,
    *,
    block: str | None = None,
    products: Iterable[str] | None = None,
    many: bool | None = None,
) -> None:
    """Give a field in which blocks stand another name, as the code has it; what subscriptions have there moves along.

    Args:
        connection: ``op.get_bind()`` in a migration.
        old, new: names of the field; the same when only ``many`` is different.
        block: the name of the product block that has the field; or
        products: the names of the products whose subscriptions have it: all that share the model.
        many: whether it holds a list from now on, where it held one block, or the other way round; unless given that stays.

    Raises:
        ConfigurationError: the block or a product is not known, there are blocks in the field ``new`` already, or several where
            one shall stand.
    """
    field = _field(connection, old, block, products)
    hold_still(connection)
    if one_name("field", new) != old:
        taken = field.count(connection, new)
        if taken:
            raise ConfigurationError(
                f"{field} has blocks in its field {new!r} already ({taken}): {old!r} cannot be renamed to that"
            )
    elif many is None:
        raise ConfigurationError(
            f"the field {old!r} has that name already: many= says whether it becomes a list or one"
        )
    if many is False and (crowded := field.count(connection, old, length=2)):
        raise ConfigurationError(
            f"the field {old!r} of {field} cannot hold one block: there are several in it ({crowded}); take the others out first,"
            " with a workflow"
        )
    for batch in batches(field.owners(connection)):
        links = field.links(connection, batch)
        told = told_of(connection, batch)
        field.rename(connection, batch, new, single=many is False)
        changes = {}
        for owner in batch:
            before = told[owner].values
            ends = {
                (link.parent(told[owner]), tail): link.tail(new, in_list=len(tail) > 1 if many is None else many)
                for link in links.get(owner, ())
                if (tail := link.told_tail(told[owner], old))
            }
            changes[owner] = moved(before, {_renamed(path, ends): value for path, value in before.items()})
        write_down(connection, changes, f"a migration has renamed the field {old} of {field} to {new}")


def drop_block_field(
    connection: Connection,
    name: str,
    *,
    block: str | None = None,
    products: Iterable[str] | None = None,
    values: Values = "refuse",
) -> None:
    """Empty a field in which blocks stand, because the code no longer has it.

    As when a step empties it, blocks that their subscription then has nowhere are deleted; what terminated subscriptions show of
    them is kept for these.

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
    field = _field(connection, name, block, products)
    check_choice(values)
    hold_still(connection)
    count = field.count(connection, name)
    if count and values == "refuse":
        raise ConfigurationError(
            f"subscriptions have blocks in the field {name!r} of {field} ({count}): values='drop' deletes these, for good; if it"
            " only got another name, use rename_block_field"
        )
    links = field.empty(connection)
    gone = delete_given_up(connection, {link.block for some in links.values() for link in some})
    owners_of_gone: dict[UUID, set[UUID]] = {}
    for one, owner in gone.items():
        owners_of_gone.setdefault(owner, set()).add(one)
    for batch in batches([*links, *owners_of_gone]):
        told = told_of(connection, batch)
        changes = {}
        for owner in batch:
            emptied = {
                (*link.parent(told[owner]), *tail)
                for link in links.get(owner, ())
                if (tail := link.told_tail(told[owner], name))
            }
            lost = {str(one) for one in owners_of_gone.get(owner, ())}
            emptied |= {_path(own_path(one)) for one in lost}
            changes[owner] = moved(told[owner].values, _without(told[owner], emptied, lost))
        # What other subscriptions lose was theirs only by way of the field: those that have no word of it have not changed.
        changes = {owner: change for owner, change in changes.items() if change or owner in links}
        write_down(connection, changes, f"a migration has dropped the field {name} of {field}")


@dataclass(frozen=True, slots=True)
class _Link:
    """A block in a field; ``holder`` is the block that has the field, ``None`` for the subscription itself."""

    holder: UUID | None
    position: int
    block: UUID

    def parent(self, told: Told) -> _Path:
        """The path of what has the field."""
        return () if self.holder is None else _path(told.place(self.holder))

    def told_tail(self, told: Told, field: str) -> _Path:
        """The end of the path where the history says that the block stands; empty when it does not say that."""
        for tail in ((field,), (field, str(self.position))):
            if told.values.get(".".join((*self.parent(told), *tail))) == str(self.block):
                return tail
        return ()

    def tail(self, field: str, *, in_list: bool) -> _Path:
        """The end of the path where the block stands from now on."""
        return (field, str(self.position)) if in_list else (field,)


_OF_BLOCKS = {
    "links": "subscription_instance_relations",
    "key": "in_use_by_id",
    "holder": "r.in_use_by_id",
    "holders": "subscription_instances",
    "id": "subscription_instance_id",
    "kind": "product_block_id",
}
_OF_SUBSCRIPTIONS = {
    "links": "subscription_roots",
    "key": "subscription_id",
    "holder": "CAST(NULL AS uuid)",
    "holders": "subscriptions",
    "id": "subscription_id",
    "kind": "product_id",
}
_HERE = "h.{id} = r.{key} AND h.{kind} = ANY(:kinds) AND r.field = :field"
_COUNT = f"""
SELECT count(*)
  FROM (SELECT FROM {{links}} r JOIN {{holders}} h ON {_HERE} GROUP BY r.{{key}} HAVING count(*) >= :length) crowded
"""  # noqa: S608 - built from constants
_OWNERS = f"SELECT DISTINCT h.subscription_id FROM {{links}} r JOIN {{holders}} h ON {_HERE}"  # noqa: S608 - built from constants
_LINKS = f"""
SELECT h.subscription_id, {{holder}}, r.position, r.depends_on_id
  FROM {{links}} r JOIN {{holders}} h ON {_HERE} AND h.subscription_id = ANY(:owners)
"""  # noqa: S608 - built from constants
_RENAME = f"""
UPDATE {{links}} r SET field = :new, position = CASE WHEN :single THEN 0 ELSE r.position END
  FROM {{holders}} h WHERE {_HERE} AND h.subscription_id = ANY(:owners)
"""  # noqa: S608 - built from constants
_DELETE = f"""
DELETE FROM {{links}} r USING {{holders}} h WHERE {_HERE}
RETURNING h.subscription_id, {{holder}}, r.position, r.depends_on_id
"""  # noqa: S608 - built from constants


class _Field:
    """A field of a product block, or of the subscriptions of some products, and what stands there.

    Args:
        holder: says in error texts what has the field.
        kinds: the ids of the product block or of the products.
        rows: the names of tables and columns, which the statements are made of.
    """

    def __init__(self, holder: str, name: str, kinds: Iterable[UUID], rows: Mapping[str, str]) -> None:
        self._holder = holder
        self._parameters: Mapping[str, object] = {"kinds": list(kinds), "field": name}
        self._rows = rows

    def __str__(self) -> str:
        return self._holder

    def count(self, connection: Connection, name: str, *, length: int = 1) -> int:
        """How many have at least so many blocks in a field of this name."""
        return connection.scalar(self._statement(_COUNT), {**self._parameters, "field": name, "length": length}) or 0

    def owners(self, connection: Connection) -> list[UUID]:
        """The subscriptions in which something stands there."""
        return list(connection.scalars(self._statement(_OWNERS), self._parameters))

    def links(self, connection: Connection, owners: list[UUID]) -> dict[UUID, list[_Link]]:
        """What stands there in these subscriptions."""
        return _by_owner(connection.execute(self._statement(_LINKS), {**self._parameters, "owners": owners}))

    def rename(self, connection: Connection, owners: list[UUID], new: str, *, single: bool) -> None:
        """Move what stands there in these subscriptions to another field."""
        given = {**self._parameters, "owners": owners, "new": new, "single": single}
        connection.execute(self._statement(_RENAME), given)

    def empty(self, connection: Connection) -> dict[UUID, list[_Link]]:
        """Let nothing stand there any more; what did."""
        return _by_owner(connection.execute(self._statement(_DELETE), self._parameters))

    def _statement(self, template: str) -> TextClause:
        return sql(template.format(**self._rows))


def _by_owner(rows: Iterable[Sequence[Any]]) -> dict[UUID, list[_Link]]:
    found: dict[UUID, list[_Link]] = {}
    for owner, holder, position, block in rows:
        found.setdefault(owner, []).append(_Link(holder, position, block))
    return found


def _field(connection: Connection, name: str, block: str | None, products: Iterable[str] | None) -> _Field:
    require_catalogue(connection)
    one_name("field", name)
    if (block is None) == (products is None):
        raise ConfigurationError(
            f"the field {name!r} is either of a product block, block=..., or of subscriptions, products=[...]"
        )
    if block is not None:
        return _Field(block, name, [id_of(connection, BLOCK, block)], _OF_BLOCKS)
    names = several_names("products", products or ())
    if not names:
        raise ConfigurationError(f"products is empty: the field {name!r} is of no subscription then")
    return _Field(", ".join(names), name, ids_of(connection, PRODUCT, names).values(), _OF_SUBSCRIPTIONS)


def _path(text: str) -> _Path:
    return tuple(text.split("."))


def _renamed(path: str, ends: Mapping[tuple[_Path, _Path], _Path]) -> str:
    """A path with other ends of those parts that name a block: a renamed field may stand below another, of the same name.

    Args:
        ends: the path of what has the field, and how it goes on there -> how it goes on from now on.
    """
    parts = _path(path)
    found: list[str] = []
    start = 0
    while start < len(parts):
        for length in (1, 2):
            end = ends.get((parts[:start], parts[start : start + length]))
            if end is not None:
                break
        else:
            end, length = parts[start : start + 1], 1
        found += end
        start += length
    return ".".join(found)


def _without(told: Told, emptied: set[_Path], lost: set[str]) -> dict[str, JSON]:
    """What a subscription is when nothing stands at some paths any more.

    Args:
        emptied: the paths.
        lost: the ids of its blocks that are gone. Others whose values were there stand elsewhere, too: these move to there.
    """
    after: dict[str, JSON] = {}
    elsewhere: dict[_Path, str] = {}
    for path in sorted(told.values, key=lambda one: one.count(".")):
        value, parts = told.values[path], _path(path)
        above = [parts[:length] for length in range(1, len(parts) + 1)]
        new = next((f"{elsewhere[one]}.{'.'.join(parts[len(one) :])}" for one in above[:-1] if one in elsewhere), None)
        if new is not None:
            after[new] = value
        elif not emptied.intersection(above):
            after[path] = value
        elif isinstance(value, str) and told.is_filled(path) and value not in lost:
            others = [one for one in told.places(value) if not emptied.intersection(_prefixes(one))]
            elsewhere[parts] = others[0] if others else own_path(value)
    return after


def _prefixes(path: str) -> Iterable[_Path]:
    parts = _path(path)
    return [parts[:length] for length in range(1, len(parts) + 1)]
