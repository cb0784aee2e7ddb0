"""Query parameters that a path does not have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from orchestrator.db.session import Database
from tests.integration.api_client import open_api


@pytest.fixture
async def api(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(database) as client:
        yield client


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"


async def test_a_parameter_that_a_path_does_not_have_is_refused_with_those_that_it_has(api: httpx.AsyncClient) -> None:
    """A misspelt filter would be answered with everything, and a misspelt condition of a retry would do it all the same."""
    answer = await api.get("/api/processes", params={"filtr": "last_status,failed", "range": "0,9"})
    assert is_refused(answer)
    assert answer.json()["reasons"] == [{"key": "query.invalid", "allowed": ["filter", "q", "query", "range", "sort"]}]
    assert "'filtr'" in answer.json()["detail"]
    answer = await api.put(f"/api/processes/{uuid4()}/resume", params={"sen": "7"}, json={})
    assert is_refused(answer)
    assert answer.json()["reasons"][0]["allowed"] == ["seen"]
    for path in (
        "/subscriptions",
        "/products",
        "/processes/status-counts",
        "/dead-letters",
        "/events",
        "/settings/status",
    ):
        assert is_refused(await api.get(f"/api{path}?no_such=1")), path


async def test_programs_that_nobody_can_correct_may_send_more_parameters(api: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/search/paths", "/search/definitions"):
        assert (await api.get(f"/api{path}?_=17&reporter=me")).status_code == 200
    answer = await api.post(f"/api/processes/{uuid4()}/callback/{'x' * 43}?_=17", json={})
    assert answer.status_code == 404
