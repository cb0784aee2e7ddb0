"""Migration 0005 converts histories between paths and keys; what they add up to stays the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from orchestrator.db.subscriptions import StoredSubscription
from orchestrator.domain.diff import diff_rows, explain, is_same
from tests.unit.test_domain_diff import subscriptions

FILE = Path(__file__).resolve().parents[2] / "migrations" / "versions" / "0005_changes_by_block.py"
SPEC = importlib.util.spec_from_file_location("changes_by_block", FILE)
assert SPEC is not None
assert SPEC.loader is not None
MIGRATION: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MIGRATION)
RESOURCE_TYPES = {"v", "w"}
NODE, OTHER = (str(UUID(int=number)) for number in (1, 2))


@given(st.lists(subscriptions(), min_size=1, max_size=5))
def test_a_history_survives_the_way_down_and_up_again(forms: list[StoredSubscription]) -> None:
    history, before = [], None
    for after in forms:
        found = diff_rows(before, after, version=1, insync=False)
        if found is not None:
            history.append(from_json(to_json(found.changes)))
        before = after

    by_path = list(MIGRATION.convert_to_paths(history))
    again = list(MIGRATION.convert_to_keys(by_path, RESOURCE_TYPES))

    assert is_same(again, history)
    assert len(explain(by_path)) == len(explain(history))


@pytest.mark.parametrize(
    ("by_path", "by_key"),
    [
        (
            # The other block has the same value, so the path of that has no entry.
            [{"node": [None, NODE], "node.v": [None, 7]}, {"node": [NODE, OTHER]}],
            [
                {"/node": [None, NODE], f"{NODE}.v": [None, 7]},
                {"/node": [NODE, OTHER], f"{NODE}.v": [7, None], f"{OTHER}.v": [None, 7]},
            ],
        ),
        (
            # An id as a value of a block is no place.
            [{"node": [None, NODE], "node.v": [None, OTHER]}, {"node.v": [OTHER, None]}],
            [{"/node": [None, NODE], f"{NODE}.v": [None, OTHER]}, {f"{NODE}.v": [OTHER, None]}],
        ),
        (
            [{f"blocks.{NODE}.v": [None, 1]}, {f"blocks.{NODE}.v": [1, True]}],
            [{f"{NODE}.v": [None, 1]}, {f"{NODE}.v": [1, True]}],
        ),
        (
            [{"node": [None, NODE]}, {"insync": [False, True], "status": [None, "active"]}, {"odd.path": [None, 1]}],
            [{"/node": [None, NODE]}, {"insync": [False, True], "status": [None, "active"]}, {"odd.path": [None, 1]}],
        ),
    ],
)
def test_paths_become_keys(by_path: list[dict[str, Any]], by_key: list[dict[str, Any]]) -> None:
    assert list(MIGRATION.convert_to_keys(by_path, RESOURCE_TYPES)) == by_key
