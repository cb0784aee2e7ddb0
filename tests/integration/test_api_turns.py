"""One user may have so many requests in progress; more are refused, and others are served meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.authorization import Role
from orchestrator.db.processes.counts import StatusCounts
from orchestrator.db.session import Database
from orchestrator.services.api_keys import create_key
from tests.integration.api_client import open_api
from tests.integration.live_api import live_api
from tests.integration.waiting import until

SLOW = "/api/processes/status-counts"


async def key_of(database: Database, name: str) -> dict[str, str]:
    async with database.transaction() as session:
        made = await create_key(session, name, Role.READ, "tests", None)
    return {"authorization": f"Bearer {made.secret}"}


async def test_who_has_too_many_requests_in_progress_is_refused_and_others_are_served(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By user, not by key, whatever the client's address is."""
    impatient, again, other = [await key_of(database, name) for name in ("crm", "crm", "noc")]
    opened = asyncio.Event()
    waiting = 0

    async def wait(_: object) -> StatusCounts:
        nonlocal waiting
        waiting += 1
        await opened.wait()
        return StatusCounts({}, {})

    monkeypatch.setattr("orchestrator.api.routes.processes.count_statuses", wait)
    async with open_api(database, auth="api-keys", requests_per_user=3) as api:
        running = [asyncio.create_task(api.get(SLOW, headers=impatient)) for _ in range(3)]
        await until(lambda: waiting == 3, "three are in progress")
        for headers in (impatient, again):
            refused = await api.get("/api/processes", headers=headers)
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await api.get("/api/processes", headers=other)).status_code == 200
        assert (await api.get("/api/health/live")).status_code == 200
        opened.set()
        assert [(await one).status_code for one in running] == [200, 200, 200]
        assert (await api.get("/api/processes", headers=impatient)).status_code == 200


async def test_what_was_refused_or_has_failed_does_not_count(database: Database) -> None:
    async with open_api(database, requests_per_user=1) as api:
        for path, status in (("/processes/17", 422), ("/products/none", 404), ("/processes", 200), ("/processes", 200)):
            assert (await api.get(f"/api{path}")).status_code == status


async def test_open_streams_take_no_turn(database: Database) -> None:
    async with live_api(database, requests_per_user=1) as api, api.stream() as one, api.stream() as two:
        await one.is_following()
        await two.is_following()
        assert (await api.client.get("/api/processes")).status_code == 200
