"""PostgreSQL plans the statements of steps once for a connection, not for each step."""

from __future__ import annotations

from uuid import uuid4

import pytest

from orchestrator import registry
from orchestrator.db.processes.advance import Advance, advance
from orchestrator.db.processes.claims import Claim, Wanted, claim_many
from orchestrator.db.session import Database, Driver
from orchestrator.engine.decide import decide
from orchestrator.engine.events import StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.messages import StepCommand
from orchestrator.services.results import make_stamp
from orchestrator.services.start import StartRequest, start
from tests.integration.engine_bench import LIMITS
from tests.integration.run_ahead_bench import MANY, many

CUSTOM_PLANS = 5
"""PostgreSQL makes so many for the values of each execution, and then compares what they cost with a plan for any values."""


async def _claim(database: Database, connection: Driver, plan: Plan) -> Claim:
    consumer = uuid4()
    await connection.execute(
        "INSERT INTO consumers (consumer_id, name, queues, concurrency) VALUES ($1, 'test', '{}', 1)", consumer
    )
    async with database.transaction() as session:
        process_id = (await start(session, StartRequest(many.name), LIMITS)).process_id
    row = await connection.fetchrow(
        "SELECT process_id, workflow, step, position, attempt FROM processes WHERE process_id = $1", process_id
    )
    assert row is not None
    wanted = Wanted(StepCommand(**row), plan.fingerprint)
    (claim,) = await claim_many(connection, [wanted], consumer_id=consumer, consumer="test")
    assert claim is not None
    return claim


async def test_the_statements_of_single_steps_are_planned_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    registry.LazyWorkflowInstance("tests.integration.run_ahead_bench", many.name)
    await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", many.name)
    plan = Plan.of(many)
    async with database.pool.acquire() as connection:
        for _ in range(CUSTOM_PLANS + 1):
            claim = await _claim(database, connection, plan)
            for _ in range(MANY - 1):
                decision = decide(plan, claim.process, StepSucceeded(claim.process.attempt, {"a": 1}), make_stamp())
                receipt = await advance(connection, Advance(claim.process, decision, 60, claim, goes_on=True))
                assert receipt is not None
                assert receipt.following is not None
                claim = receipt.following
        found = await connection.fetch(
            "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements WHERE statement ~ '^\\s*(UPDATE|WITH)'"
        )
    plans = {
        "claim" if row["statement"].strip().startswith("UPDATE") else "advance": (
            row["generic_plans"],
            row["custom_plans"],
        )
        for row in found
    }
    assert plans == {
        "claim": (1, CUSTOM_PLANS),
        "advance": ((CUSTOM_PLANS + 1) * (MANY - 1) - CUSTOM_PLANS, CUSTOM_PLANS),
    }
