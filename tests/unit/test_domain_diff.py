"""What is different between two forms of a subscription: written as rows, and as a history."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from orchestrator.db.subscriptions import Columns, Difference, StoredBlock, StoredSubscription
from orchestrator.domain.diff import diff_keys, diff_rows, explain, flatten, is_same, settle_numbers
from orchestrator.types import JSON

MINE = UUID(int=100)
IDS = [UUID(int=number) for number in range(1, 7)]
FOREIGN = {IDS[2], IDS[5]}
LISTS = frozenset({(None, "many"), ("A", "many"), ("B", "many")})

scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.sampled_from(["", "x"]))
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("pq"), inner, max_size=2),
    max_leaves=4,
)
columns = st.builds(
    Columns,
    product_id=st.sampled_from(IDS[:2]),
    customer_id=st.sampled_from(["one", "two"]),
    description=st.just("words"),
    status=st.sampled_from(["initial", "active"]),
    start_date=st.none() | st.datetimes(timezones=st.just(UTC)),
    end_date=st.none(),
    note=st.none() | st.text(max_size=2),
)


@st.composite
def subscriptions(draw: st.DrawFn) -> StoredSubscription:
    """Any tree: each block refers only to later ones; some belong to other subscriptions; what cannot be reached is not there."""

    def links(start: int) -> dict[tuple[str, int], UUID]:
        later = IDS[start:]
        if not later:
            return {}
        many = draw(st.lists(st.sampled_from(later), max_size=3))
        one = draw(st.none() | st.sampled_from(later))
        return {("many", at): key for at, key in enumerate(many)} | ({("one", 0): one} if one is not None else {})

    root = links(0)
    blocks: dict[UUID, StoredBlock] = {}
    reached = set(root.values())
    for number, key in enumerate(IDS, 1):
        if key in reached and key not in FOREIGN:
            values = draw(st.dictionaries(st.sampled_from("vw"), documents, max_size=2))
            blocks[key] = StoredBlock(
                "A" if number % 2 else "B", MINE, draw(st.none() | st.just("L")), values, links(number)
            )
            reached |= set(blocks[key].links.values())
    return StoredSubscription(MINE, draw(columns), root, blocks, LISTS)


class Rows:
    """What the two statements would leave in the tables."""

    def __init__(self) -> None:
        self.columns: Columns | None = None
        self.blocks: dict[UUID, tuple[str, str | None, object]] = {}
        self.places: dict[tuple[UUID | None, str, int], UUID] = {}

    def apply(self, found: Difference) -> None:
        self.columns = found.columns
        assert not found.made.keys() & self.blocks.keys()
        assert found.changed.keys() <= self.blocks.keys()
        for key, block in {**found.made, **found.changed}.items():
            self.blocks[key] = (block.name, block.label, block.values)
        for place in found.unlinked:
            del self.places[place]
        self.places |= {(parent, field, position): block for parent, field, position, block in found.linked}
        for key in found.removed:
            del self.blocks[key]
        self.places = {place: block for place, block in self.places.items() if place[0] not in found.removed}
        assert not set(found.removed) & set(self.places.values()), "what is removed is still referred to"


@given(st.lists(subscriptions(), min_size=1, max_size=5))
def test_writing_each_difference_leaves_what_the_last_form_says(history: list[StoredSubscription]) -> None:
    rows, before = Rows(), None
    for after in history:
        found = diff_rows(before, after, version=1, insync=False)
        if found is not None:
            rows.apply(found)
        before = after

    last = history[-1]
    assert rows.columns == last.columns
    assert rows.blocks.keys() == last.blocks.keys()
    for key, (name, label, values) in rows.blocks.items():
        assert (name, label) == (last.blocks[key].name, last.blocks[key].label)
        assert is_same(values, dict(last.blocks[key].values))  # type: ignore[arg-type]
    places: dict[tuple[UUID | None, str, int], UUID] = {(None, *place): key for place, key in last.links.items()}
    for parent, one in last.blocks.items():
        places |= {(parent, *place): key for place, key in one.links.items()}
    assert rows.places == places


@given(st.lists(subscriptions(), min_size=1, max_size=5))
def test_a_history_explains_every_value(history: list[StoredSubscription]) -> None:
    changes, before = [], None
    for after in history:
        found = diff_rows(before, after, version=1, insync=False)
        if found is not None:
            changes.append(from_json(to_json(found.changes)))
        before = after

    assert is_same(explain(changes), flatten(history[-1]))


@given(subscriptions())
def test_nothing_differs_from_itself(rows: StoredSubscription) -> None:
    assert diff_rows(rows, rows, version=1, insync=False) is None


@given(subscriptions(), subscriptions())
def test_there_is_no_difference_only_where_there_is_none(before: StoredSubscription, after: StoredSubscription) -> None:
    if diff_rows(before, after, version=1, insync=False) is None:
        assert flatten(before).keys() == flatten(after).keys()
        assert diff_keys(flatten(before), flatten(after)) == {}


def block(*, links: dict[tuple[str, int], UUID] | None = None, **values: JSON) -> StoredBlock:
    return StoredBlock("A", MINE, None, values, links or {})


COLUMNS = Columns(IDS[0], "customer", "words", "active", datetime(2026, 1, 2, tzinfo=UTC), None, None)


def test_keys_name_blocks_by_their_ids() -> None:
    inner, outer = IDS[0], IDS[1]
    rows = StoredSubscription(
        MINE,
        COLUMNS,
        {("node", 0): outer},
        {outer: block(links={("ports", 0): inner}, name="ams", gone=None), inner: block(vlan=7)},
        frozenset({("A", "ports")}),
    )

    assert flatten(rows) == {
        "product_id": str(IDS[0]),
        "customer_id": "customer",
        "description": "words",
        "status": "active",
        "start_date": "2026-01-02T00:00:00Z",
        "/node": str(outer),
        f"{outer}.name": "ams",
        f"{outer}/ports/0": str(inner),
        f"{inner}.vlan": 7,
    }


def test_only_the_place_of_another_subscriptions_block_is_part_of_a_subscription() -> None:
    rows = StoredSubscription(MINE, COLUMNS, {("node", 0): IDS[0]}, {})

    assert flatten(rows)["/node"] == str(IDS[0])
    assert not any(key.startswith(str(IDS[0])) for key in flatten(rows))


def test_a_block_below_another_subscriptions_is_part_of_its_own_subscription() -> None:
    rows = StoredSubscription(MINE, COLUMNS, {("node", 0): IDS[0]}, {IDS[1]: block(vlan=7)})

    assert flatten(rows)[f"{IDS[1]}.vlan"] == 7


def test_a_change_has_the_old_value_and_the_new() -> None:
    before = StoredSubscription(MINE, COLUMNS, {("node", 0): IDS[0]}, {IDS[0]: block(vlan=7, old=1)})
    after = replace(before, columns=replace(COLUMNS, note="moved"), blocks={IDS[0]: block(vlan=8, new=[1])})

    found = diff_rows(before, after, version=3, insync=True)

    assert found is not None
    assert found.changes == {
        "note": (None, "moved"),
        f"{IDS[0]}.vlan": (7, 8),
        f"{IDS[0]}.new": (None, [1]),
        f"{IDS[0]}.old": (1, None),
    }
    assert (found.version, found.made, list(found.changed), found.removed) == (3, {}, [IDS[0]], [])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, False),
        (1.0, 1.0, True),
        (10**300, 1e300, False),
        (10**400, 1e300, False),
        (1, True, False),
        (0, False, False),
        ([1], [1.0], False),
        ([1], [True], False),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"b": 1}, False),
        (None, 0, False),
        ("1", 1, False),
    ],
)
def test_values_are_the_same_in_value_and_in_type(one: JSON, other: JSON, same: bool) -> None:
    assert is_same(one, other) is same
    assert is_same(other, one) is same


def test_numbers_are_taken_in_the_type_that_the_class_gives_them() -> None:
    stored: dict[str, JSON] = {"a": 1, "b": 1, "c": [1, {"d": 10**300}], "e": 2, "gone": 3, "f": True}
    loaded: dict[str, JSON] = {"a": 1.0, "b": 1, "c": [1.0, {"d": 1e300}], "e": 3.0, "new": 4, "f": 1.0}
    assert repr(settle_numbers(stored, loaded)) == repr(
        {"a": 1.0, "b": 1, "c": [1.0, {"d": 1e300}], "e": 2, "gone": 3, "f": True}
    )


def test_a_time_is_the_same_in_every_zone() -> None:
    there = datetime.fromisoformat("2026-01-02T01:00:00+01:00")
    rows = StoredSubscription(MINE, replace(COLUMNS, start_date=there), {}, {})

    assert flatten(rows)["start_date"] == "2026-01-02T00:00:00Z"
    assert diff_rows(replace(rows, columns=COLUMNS), rows, version=1, insync=True) is None


def test_a_persons_word_that_a_subscription_is_in_sync_is_no_part_of_what_it_is() -> None:
    assert explain([{"note": [None, "a"]}, {"insync": [False, True]}, {"note": ["a", "b"]}]) == {"note": "b"}
