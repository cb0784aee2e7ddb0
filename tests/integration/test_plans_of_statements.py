"""PostgreSQL plans the statements of steps once for a connection, not for each step."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import asyncpg
import pytest

from orchestrator import registry
from orchestrator.db.processes.advance import Advance, advance_many
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


async def _step(connection: Driver, plan: Plan, claims: Sequence[Claim]) -> list[Claim]:
    steps = []
    for claim in claims:
        decision = decide(plan, claim.process, StepSucceeded(claim.process.attempt, {"a": 1}), make_stamp())
        steps.append(Advance(claim.process, decision, 60, claim, goes_on=True))
    receipts = await advance_many(connection, steps)
    following = [receipt.following for receipt in receipts if receipt is not None and receipt.following is not None]
    assert len(following) == len(claims)
    return following


async def _list_statements(connection: Driver) -> dict[str, asyncpg.Record]:
    found = await connection.fetch(
        "SELECT * FROM pg_prepared_statements WHERE statement ~ '^\\s*(UPDATE|WITH d)' ORDER BY prepare_time"
    )
    return {"claim" if row["statement"].strip().startswith("UPDATE") else "advance": row for row in found}


def _plans(statements: dict[str, asyncpg.Record]) -> dict[str, tuple[int, int]]:
    return {name: (row["generic_plans"], row["custom_plans"]) for name, row in statements.items()}


@pytest.fixture
async def plan(database: Database, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(registry, "_instances", {})
    registry.LazyWorkflowInstance("tests.integration.run_ahead_bench", many.name)
    await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", many.name)
    return Plan.of(many)


async def test_the_statements_of_single_steps_are_planned_once(database: Database, plan: Plan) -> None:
    async with database.pool.acquire() as connection:
        for _ in range(CUSTOM_PLANS + 1):
            claim = await _claim(database, connection, plan)
            for _ in range(MANY - 1):
                (claim,) = await _step(connection, plan, [claim])
        statements = await _list_statements(connection)
    assert _plans(statements) == {
        "claim": (1, CUSTOM_PLANS),
        "advance": ((CUSTOM_PLANS + 1) * (MANY - 1) - CUSTOM_PLANS, CUSTOM_PLANS),
    }


@pytest.mark.parametrize("size", [2, 5, 20])
async def test_the_statements_of_several_steps_are_planned_once(database: Database, plan: Plan, size: int) -> None:
    async with database.pool.acquire() as connection:
        claims = [await _claim(database, connection, plan) for _ in range(size)]
        for _ in range(MANY - 1):
            claims = await _step(connection, plan, claims)
        statements = await _list_statements(connection)
    assert _plans(statements)["advance"] == (MANY - 1 - CUSTOM_PLANS, CUSTOM_PLANS)


async def test_a_plan_that_is_made_while_the_table_is_small_goes_by_the_key(database: Database, plan: Plan) -> None:
    """PostgreSQL keeps it when thousands of processes are started in the next seconds."""
    async with database.pool.acquire() as connection:
        claims = [await _claim(database, connection, plan) for _ in range(3)]
        await connection.execute("ANALYZE processes")
        for _ in range(MANY - 1):
            claims = await _step(connection, plan, claims)
        statement = (await _list_statements(connection))["advance"]
        assert statement["generic_plans"]
        nothing = ", ".join("NULL" for _ in statement["parameter_types"])
        lines = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {statement['name']}({nothing})")]
    (scan,) = (number for number, line in enumerate(lines) if " on processes " in line and "Update" not in line)
    # An index scan has its condition in the next line; a bitmap scan, which PostgreSQL finds as cheap at times, in the last.
    shown = "\n".join(lines[scan : scan + 5])
    assert "pk_processes" in shown
    assert "Index Cond: (process_id = d.process_id)" in shown
