"""What makes a request under a used key a repetition of the first, and what another request."""

from __future__ import annotations

from uuid import UUID

import pytest

from orchestrator.db.processes.idempotency import Command
from orchestrator.services.start import StartRequest
from orchestrator.types import JSON, State, sort_keys

PROCESS = UUID(int=1)
PAGES: list[State] = [{"node": "ams-1", "ports": [{"name": "a", "speed": 10}, {"name": "b", "speed": 1}]}, {}]
OTHER_ORDER: list[State] = [{"ports": [{"speed": 10, "name": "a"}, {"speed": 1, "name": "b"}], "node": "ams-1"}, {}]


def test_the_order_of_keys_makes_no_other_request() -> None:
    """Some senders write the same object in another order each time."""
    assert StartRequest("w", PAGES).digest() == StartRequest("w", OTHER_ORDER).digest()
    one, other = (Command(PROCESS, "key", ["resume", *pages]) for pages in (PAGES, OTHER_ORDER))
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    "other",
    [
        [*PAGES, {}],
        PAGES[:1],
        [{}, PAGES[0]],
        [{"node": "ams-1", "ports": list(reversed(PAGES[0]["ports"]))}, {}],
        [{"node": "ams-1 "}, {}],
        [{"node": None, "ports": PAGES[0]["ports"]}, {}],
    ],
)
def test_other_pages_and_another_workflow_make_another_request(other: list[State]) -> None:
    assert StartRequest("w", PAGES).digest() != StartRequest("w", other).digest()
    assert StartRequest("w", PAGES).digest() != StartRequest("v", PAGES).digest()


@pytest.mark.parametrize("value", [None, 1, 1.5, "b", [], {}, [2, 1], [{"b": 1, "a": [{"d": 1, "c": 2}]}]])
def test_sorted_values_are_the_same_values(value: JSON) -> None:
    assert sort_keys(value) == value
