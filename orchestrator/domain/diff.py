"""Compare two versions of a subscription: for the rows to write, and for its history. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from uuid import UUID

from pydantic_core import to_jsonable_python

from orchestrator.db.subscriptions import Difference, Links, StoredBlock, StoredSubscription
from orchestrator.db.subscriptions.change_keys import make_link_key, make_value_key
from orchestrator.domain.serialization import as_instant
from orchestrator.types import JSON

IN_SYNC = "insync"
"""The key of an entry that says who has set a subscription in sync by hand."""


def diff_rows(
    before: StoredSubscription | None, after: StoredSubscription, *, version: int | None, insync: bool
) -> Difference | None:
    """Return what must be written so that the rows say ``after``; ``None`` when they say it already."""
    old: Mapping[UUID, StoredBlock] = {} if before is None else before.blocks
    places_then = {} if before is None else _map_places(before)
    places_now = _map_places(after)
    linked = [(*place, block) for place, block in places_now.items() if places_then.get(place) != block]
    found = Difference(
        subscription_id=after.subscription_id,
        version=version,
        insync=insync,
        columns=after.columns,
        changes={},
        made={key: block for key, block in after.blocks.items() if key not in old},
        changed={
            key: block
            for key, block in after.blocks.items()
            if key in old and not (block.label == old[key].label and is_same(dict(block.values), dict(old[key].values)))
        },
        removed=[key for key in old if key not in after.blocks],
        linked=linked,
        foreign=frozenset(block for _, _, _, block in linked if block not in after.blocks),
        given_up=frozenset(places_then.values()) - frozenset(places_now.values()),
        # Those of a removed block as well: left to the foreign key they would go too late for other blocks that go.
        unlinked=[place for place in places_then if place not in places_now],
    )
    if before is not None and before.columns == after.columns and not found.touches_blocks:
        return None
    return replace(found, changes=diff_keys({} if before is None else flatten(before), flatten(after)))


def _map_places(rows: StoredSubscription) -> dict[tuple[UUID | None, str, int], UUID]:
    places: dict[tuple[UUID | None, str, int], UUID] = {(None, *place): block for place, block in rows.links.items()}
    for key, one in rows.blocks.items():
        places |= {(key, *place): block for place, block in one.links.items()}
    return places


def flatten(rows: StoredSubscription) -> dict[str, JSON]:
    """Return everything that a subscription is, by the keys of :mod:`orchestrator.db.subscriptions.change_keys`.

    What is ``None`` has no entry. The values of a block that belongs to another subscription are not part of this one.
    """
    found: dict[str, JSON] = {}
    for field in fields(rows.columns):
        value = getattr(rows.columns, field.name)
        if value is not None:
            found[field.name] = to_jsonable_python(as_instant(value))
    found |= _flatten_links(rows, None, None, rows.links)
    for block_id, block in rows.blocks.items():
        key = str(block_id)  # once: it takes a microsecond
        values = {"label": block.label, **block.values}
        found |= {make_value_key(key, name): value for name, value in values.items() if value is not None}
        found |= _flatten_links(rows, block.name, key, block.links)
    return found


def _flatten_links(rows: StoredSubscription, name: str | None, holder: str | None, links: Links) -> dict[str, JSON]:
    return {
        make_link_key(holder, field, position if (name, field) in rows.lists else None): str(block)
        for (field, position), block in links.items()
    }


def diff_keys(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> dict[str, tuple[JSON, JSON]]:
    """Return the old and the new value of each key whose value differs."""
    keys = dict.fromkeys([*after, *before])
    return {key: (before.get(key), after.get(key)) for key in keys if not is_same(before.get(key), after.get(key))}


def explain(changes: Iterable[Mapping[str, Sequence[JSON]]]) -> dict[str, JSON]:
    """Return what a history adds up to: the last value of each key of its changes, the oldest change first.

    An entry that an operator has set the subscription in sync is left out, because it changes no value.
    """
    values: dict[str, JSON] = {}
    for change in changes:
        for key, (_, new) in change.items():
            if new is None or key == IN_SYNC:
                values.pop(key, None)
            else:
                values[key] = new
    return values


def is_same(one: JSON, other: JSON) -> bool:
    """Return whether two JSON values are the same in value and in type, as the database keeps both: 1 is not 1.0."""
    return _is_equal(one, other, are_numbers_alike=False)


def settle_numbers(stored: Mapping[str, JSON], loaded: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return values as they are stored, but with numbers of the type that the class gives them.

    A migration may have written 1 where the class has a float; that the model has 1.0 is no change.
    """
    return {
        name: loaded[name] if name in loaded and _is_equal(value, loaded[name], are_numbers_alike=True) else value
        for name, value in stored.items()
    }


def _is_equal(one: JSON, other: JSON, *, are_numbers_alike: bool) -> bool:
    if type(one) is type(other) and not isinstance(one, dict | list):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _is_equal(value, other[key], are_numbers_alike=are_numbers_alike) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            _is_equal(*pair, are_numbers_alike=are_numbers_alike) for pair in zip(one, other, strict=True)
        )
    if are_numbers_alike and {type(one), type(other)} == {int, float}:
        try:
            return float(one) == float(other)  # type: ignore[arg-type]
        except OverflowError:
            pass
    return False
