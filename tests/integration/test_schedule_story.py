"""A program schedules a workflow over HTTP, sees it run, pauses it and removes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from orchestrator.coordinator.scheduler import Scheduler
from orchestrator.db.session import Database
from orchestrator.services.plans import ProgramPlans
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.schedule_rounds import LIMITS, Published
from tests.integration.waiting import until


@asynccontextmanager
async def scheduling(database: Database) -> AsyncIterator[None]:
    """Let a scheduler run, by the database's own clock."""
    stopping = asyncio.Event()
    scheduler = Scheduler(database, Published(), LIMITS, ProgramPlans.load().workflows, interval=0.2)
    running = asyncio.create_task(scheduler.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await running


async def test_a_workflow_is_scheduled_seen_to_run_paused_and_removed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    async with open_api(database) as api, scheduling(database):
        often = {"trigger": "interval", "trigger_kwargs": {"seconds": 1}, "overlap": "allow"}
        body = {"name": "greet often", "workflow_name": "greeting", "user_inputs": [{"name": "ana"}, {"tone": "kind"}]}
        made = await api.post("/api/schedules/", json={**body, **often})
        assert made.status_code == 201, made.text
        url = made.headers["location"]

        await until(lambda: _has_started(api, url, []), "a slot has started")
        first = (await api.get(url)).json()["slots"]
        await until(lambda: _has_started(api, url, first), "another one has")
        shown = (await api.get(url)).json()
        process = (await api.get(f"/api/processes/{shown['last']['process_id']}")).json()
        assert process["workflow_name"] == "greeting"
        assert process["current_state"]["name"] == "ana"
        assert process["created_by"] == "schedule:greet often"
        listed = await api.get("/api/processes", params={"filter": "created_by,schedule:*"})
        assert len(listed.json()) >= 2

        paused = (await api.post(f"{url}/pause", json={"reason": "enough"})).json()
        assert (paused["state"], paused["why"]) == ("disabled", "paused by anonymous: enough")
        started = (await api.get(url)).json()["slots"]
        resumed = (await api.post(f"{url}/resume")).json()
        # What lies between is not made up for, and not missed either.
        assert resumed["slots"][0] == started[0]
        await until(lambda: _has_started(api, url, started), "it goes on")

        assert (await api.delete(url)).status_code == 204
        assert (await api.get(url)).status_code == 404
        slots = await database.pool.fetch("SELECT slot, result FROM schedule_slots ORDER BY slot")
        assert {row["result"] for row in slots} == {"started"}
        assert await database.pool.fetchval("SELECT count(*) FROM processes") == len(slots)


async def _has_started(api: httpx.AsyncClient, url: str, before: list[dict[str, Any]]) -> bool:
    slots: list[dict[str, Any]] = (await api.get(url)).json()["slots"]
    return slots[:1] != before[:1] and slots[0]["result"] == "started"
