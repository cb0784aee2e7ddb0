"""The search page of the field's user interface: the application in this process, on a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from orchestrator.db.session import Database
from tests.integration.api_client import open_api
from tests.integration.subscription_rows import Rows
from tests.integration.test_http_reading import is_problem, read

SEARCH = "/api/search/subscriptions"
STATUS, IN_SYNC = "subscription.status", "subscription.insync"


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database.pool)


@pytest.fixture
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(database) as client:
        yield client


async def test_the_search_page_is_answered_from_columns(api: httpx.AsyncClient, rows: Rows) -> None:
    node, port = await rows.product("Node"), await rows.product("Port")
    for number in range(7):
        await rows.subscription(
            node if number % 2 else port,
            status="active" if number < 5 else "terminated",
            insync=number != 3,
            description=f"site {number}",
        )

    async def search(**body: Any) -> list[str]:
        answer = await api.post(SEARCH, json=body)
        assert answer.status_code == 200, answer.text
        return [item["entity_title"] for item in answer.json()["data"]]

    term = {"term": {STATUS: "active"}}
    by_name = {"element": "subscription.description", "direction": "asc"}
    assert await search(filters={"bool": {"must": [term, {"term": {IN_SYNC: False}}]}}) == ["site 3"]
    assert await search(filters={"bool": {"must_not": term}}, order_by=by_name) == ["site 5", "site 6"]
    either = {"bool": {"should": [{"term": {IN_SYNC: {"value": "false"}}}, {"term": {STATUS: "Terminated"}}]}}
    assert await search(filters=either, order_by=by_name) == ["site 3", "site 5", "site 6"]
    assert await search(filters={"wildcard": {"subscription.product.name": "nod*"}}, query="3") == ["site 3"]
    assert await search(filters={"range": {"subscription.start_date": {"gte": "2026-01-01T00:00:00Z"}}}) == []
    assert await search(filters={"exists": {"field": "subscription.note"}}) == []
    first = await api.post(SEARCH, json={"query": "site", "limit": 5, "order_by": by_name})
    page = first.json()["page_info"]
    assert page == {"has_next_page": True, "next_page_cursor": "5"}
    second = await api.post(SEARCH, params={"cursor": "5"}, json={"query": "site", "limit": 5, "order_by": by_name})
    assert [item["entity_title"] for item in second.json()["data"]] == ["site 5", "site 6"]
    assert second.json()["cursor"]["total_items"] == 7
    assert second.json()["data"][0]["response_columns"][IN_SYNC] is True
    assert len(await search(limit=10_000_000)) == 7
    assert set((await read(api, "/search/definitions"))["boolean"]["operators"]) == {"eq", "neq"}
    assert [one["paths"] for one in (await read(api, "/search/paths", q="statu"))["leaves"]] == [[STATUS]]


@pytest.mark.parametrize(
    "body",
    [
        {"filters": {"regexp": {STATUS: "a.*"}}},
        {"filters": {"wildcard": {STATUS: "*a"}}},
        {"filters": {"term": {"subscription.state": "x"}}},
        {"filters": {"term": {STATUS: None}}},
        {"filters": {"term": {STATUS: "nonsense"}}},
        {"filters": {"term": {"subscription.note": "a\ud800"}}},
        {"filters": {"bool": {"must": [{"term": {STATUS: "active"}}] * 60}}},
        {"filters": {"bool": {"nested": {}}}},
        {"filters": {"bool": []}},
        {"filters": {}},
        {"order_by": {"element": "s.words"}},
        {"response_columns": ["password"]},
        {"limit": 0},
        {"query": "a " * 600},
    ],
)
async def test_what_cannot_be_searched_is_refused_with_words(api: httpx.AsyncClient, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    answer = await api.post(SEARCH, content=content, headers={"content-type": "application/json"})
    assert is_problem(answer, 400, 422), answer.text
    assert answer.json()["detail"]
