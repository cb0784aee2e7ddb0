"""What a change of a subscription looks like to people: paths, made from the keys that are stored."""

from __future__ import annotations

from uuid import UUID

import pytest

from orchestrator.db.subscriptions.change_keys import Changes, Places, make_link_key, make_value_key
from orchestrator.types import JSON

A, B, C = (UUID(int=number) for number in (10, 11, 12))
Shown = dict[str, tuple[JSON, JSON]]


def show(*changes: Changes) -> Shown:
    """The last of some changes, after the others."""
    places = Places()
    for one in changes[:-1]:
        places.apply(one)
    return places.show(changes[-1])


MADE: Changes = {
    make_link_key(None, "node"): [None, str(A)],
    make_value_key(A, "name"): [None, "ams"],
    make_link_key(A, "ports", 0): [None, str(B)],
    make_value_key(B, "vlan"): [None, 7],
}


def test_paths_are_what_a_person_would_write() -> None:
    assert show({"status": [None, "initial"], **MADE}) == {
        "status": (None, "initial"),
        "node": (None, str(A)),
        "node.name": (None, "ams"),
        "node.ports.0": (None, str(B)),
        "node.ports.0.vlan": (None, 7),
    }


def test_a_block_is_shown_where_it_stood_at_that_time() -> None:
    renamed: Changes = {make_link_key(None, "node"): [str(A), None], make_link_key(None, "router"): [None, str(A)]}
    changed: Changes = {make_value_key(B, "vlan"): [7, 8]}
    assert show(MADE, changed) == {"node.ports.0.vlan": (7, 8)}
    assert show(MADE, renamed) == {"node": (str(A), None), "router": (None, str(A))}
    assert show(MADE, renamed, changed) == {"router.ports.0.vlan": (7, 8)}


def test_a_block_that_goes_is_shown_where_it_stood_before() -> None:
    gone = {key: [new, None] for key, (_, new) in MADE.items()}
    assert show(MADE, gone) == {path: (new, None) for path, (_, new) in show(MADE).items()}


def test_a_block_that_takes_anothers_place_is_one_change_of_each_value() -> None:
    replaced: Changes = {
        make_link_key(A, "ports", 0): [str(B), str(C)],
        make_value_key(B, "vlan"): [7, None],
        make_value_key(C, "vlan"): [None, 8],
        make_value_key(C, "speed"): [None, 10],
    }
    assert show(MADE, replaced) == {
        "node.ports.0": (str(B), str(C)),
        "node.ports.0.vlan": (7, 8),
        "node.ports.0.speed": (None, 10),
    }


def test_of_several_places_the_oldest_is_shown() -> None:
    twice: Changes = {make_link_key(None, "another"): [None, str(B)]}
    assert show(MADE, twice, {make_value_key(B, "vlan"): [7, 8]}) == {"node.ports.0.vlan": (7, 8)}
    left: Changes = {make_link_key(A, "ports", 0): [str(B), None]}
    assert show(MADE, twice, left, {make_value_key(B, "vlan"): [7, 8]}) == {"another.vlan": (7, 8)}


def test_a_block_that_stands_only_below_another_subscriptions_block_has_a_path_of_its_own() -> None:
    inside: Changes = {make_link_key(B, "ports", 0): [None, str(C)], make_value_key(C, "vlan"): [None, 7]}
    assert show(inside) == {f"blocks.{B}.ports.0": (None, str(C)), f"blocks.{B}.ports.0.vlan": (None, 7)}
    rooted: Changes = {make_link_key(None, "node"): [None, str(C)]}
    assert show(inside, rooted, {make_value_key(C, "vlan"): [7, 8]}) == {"node.vlan": (7, 8)}


@pytest.mark.parametrize("path", ["status", "insync", "node.ports.0.vlan", "blocks.x", "a b/c", str(A)])
def test_what_an_earlier_version_has_stored_is_shown_as_it_is(path: str) -> None:
    assert show(MADE, {path: [None, 1]}) == {path: (None, 1)}


def test_a_history_in_which_a_block_stands_below_itself_is_shown_all_the_same() -> None:
    loop: Changes = {make_link_key(A, "x"): [None, str(B)], make_link_key(B, "x"): [None, str(A)]}
    assert show(loop, {make_value_key(A, "vlan"): [7, 8]}) == {f"blocks.{A}.x.x.vlan": (7, 8)}
