"""Schedules that nobody serves, and those that can start nothing, are named where people and programs look."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from orchestrator.cli.status import describe_schedules
from orchestrator.coordinator.metrics import Metrics
from orchestrator.coordinator.scheduler import Scheduler
from orchestrator.db.schedules.overdue import list_broken_schedules, list_overdue_schedules
from orchestrator.db.session import Database
from tests.integration import api_flows
from tests.integration.api_client import open_api
from tests.integration.schedule_rounds import LIMITS, Rounds

LATE = "UPDATE schedules SET due_at = now() - interval '90 seconds' WHERE name = 'nightly'"


async def test_overdue_and_broken_schedules_are_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await api_flows.register(database, monkeypatch)
    rounds = Rounds(database)
    await rounds.add()
    await rounds.add("refused")
    await rounds.add("quiet")
    await database.pool.execute("UPDATE schedules SET due_at = now() + interval '1 hour'")
    async with open_api(database) as api:
        assert (await api.get("/api/health/ready")).json()["schedules"] == "on time"
        await database.pool.execute(LATE)
        await database.pool.execute("UPDATE schedules SET broken = 'name: is missing' WHERE name = 'refused'")
        ready = await api.get("/api/health/ready")
    assert (ready.status_code, ready.json()["schedules"]) == (200, "overdue")
    overdue, broken = await list_overdue_schedules(database.pool), await list_broken_schedules(database.pool)
    late, refused = describe_schedules(overdue, broken)
    assert late == "the schedule 'nightly' has been due for 1 min 30 s: is a coordinator running?"
    assert refused == "the schedule 'refused' starts nothing: name: is missing"


async def test_a_coordinator_counts_slots_overdue_schedules_and_when_it_last_looked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api_flows.register(database, monkeypatch)
    rounds = Rounds(database)
    await rounds.add()
    await rounds.add("unknown", workflow="asking")
    await database.pool.execute("UPDATE schedules SET due_at = now() - interval '90 seconds'")
    metrics = Metrics()
    one = Scheduler(database, rounds.published, LIMITS, ["greeting"], interval=20, metrics=metrics)
    await one.run_once()
    text = generate_latest(metrics.registry).decode()
    assert 'orchestrator_schedule_slots_total{result="started"} 1.0' in text
    assert 'orchestrator_schedule_slots_total{result="missed"} 0.0' not in text, "those since yesterday"
    assert "orchestrator_schedules_overdue 1.0" in text
    assert "orchestrator_scheduler_round_timestamp_seconds 1." in text
