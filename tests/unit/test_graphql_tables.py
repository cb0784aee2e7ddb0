"""Lists that are read as a whole mean the same by filters, words and orders as those of SQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.api.graphql.arguments import GraphqlFilter, GraphqlSort, SortOrder, read_arguments
from orchestrator.api.graphql.tables import WORKFLOWS


def row(name: str, target: str, description: str, *products: str, is_task: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "workflow_id": f"00000000-0000-0000-0000-{abs(hash(name)) % 10**12:012}",
        "name": name,
        "target": target,
        "description": description,
        "is_task": is_task,
        "created_at": datetime(2026, 1, len(name), tzinfo=UTC),
        "products": [{"name": one, "tag": one.upper()} for one in products],
        **more,
    }


ROWS = [
    row("create_node", "CREATE", "Create a node", "Node P", "Node-Q"),
    row("modify_node", "MODIFY", "Change a node", "Node P"),
    row("terminate_port", "TERMINATE", "Take a port away", "Port"),
    row("task_clean", "SYSTEM", "Clean up", is_task=True),
]


def select(*, first: int | None = 100, after: int | None = None, query: str | None = None, **rest: Any) -> list[str]:
    problems: list[str] = []
    filters = [GraphqlFilter(field=name, value=value) for name, value in rest.get("filters", {}).items()]
    sorts = [GraphqlSort(field=name, order=order) for name, order in rest.get("sorts", {}).items()]
    asked = read_arguments(WORKFLOWS, first, after, sorts, filters, query, problems.append)
    found = [] if asked.is_empty else [one["name"] for one in WORKFLOWS.select(ROWS, asked.request).rows]
    assert [text for text in problems if rest.get("problem", "\0") not in text] == []
    assert bool(problems) == ("problem" in rest)
    return found


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"target": "CREATE"}, ["create_node"]),
        ({"target": "create|Modify"}, ["create_node", "modify_node"]),
        ({"target": "create-modify"}, ["create_node", "modify_node"]),
        ({"target": "!CREATE"}, ["modify_node", "task_clean", "terminate_port"]),
        ({"isTask": "true"}, ["task_clean"]),
        ({"isTask": "false", "target": "TERMINATE"}, ["terminate_port"]),
        ({"name": "*_node"}, []),
        ({"name": "CREATE*"}, ["create_node"]),
        ({"products": "node-q"}, ["create_node"]),
        ({"products": "nothing"}, []),
    ],
)
def test_filters(filters: dict[str, str], found: list[str]) -> None:
    assert select(filters=filters) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("node", ["create_node", "modify_node"]),
        ("NODE change", ["modify_node"]),
        ("nod*", ["create_node", "modify_node"]),
        ("nod", []),
        ('"a node"', ["create_node", "modify_node"]),
        ('"node a"', []),
        ("-node", ["task_clean", "terminate_port"]),
        ("target:(create|system)", ["create_node", "task_clean"]),
        ("isTask:true", ["task_clean"]),
        ("-name:create_node target:create", []),
        ("products:port", ["terminate_port"]),
        ("nothing:port", []),
        ("%", []),
        ("", ["create_node", "modify_node", "task_clean", "terminate_port"]),
    ],
)
def test_search_texts(query: str, found: list[str]) -> None:
    assert select(query=query) == found


def test_orders_and_pages() -> None:
    descending = {"name": SortOrder.DESC}
    assert select(sorts=descending) == ["terminate_port", "task_clean", "modify_node", "create_node"]
    assert select(sorts=descending, first=1, after=1) == ["task_clean"]
    assert select(sorts={"isTask": SortOrder.DESC, "target": SortOrder.ASC})[0] == "task_clean"
    assert select(first=0) == []
    assert select(first=-3, after=-1) == []
    assert len(select(first=None)) == 4
    assert len(select(first=1_000_000)) == 4


def test_what_the_list_does_not_have_is_reported_and_left_out() -> None:
    assert len(select(filters={"nothing": "x"}, problem="there is no filter 'nothing'")) == 4
    assert len(select(sorts={"nothing": SortOrder.ASC}, problem="cannot be sorted by 'nothing'")) == 4
    assert select(filters={"name": " | "}, problem="has no value") == []
    assert select(query="a " * 600, problem="characters; at most") == []
    assert select(after=10**9, problem="may begin at row") == []
