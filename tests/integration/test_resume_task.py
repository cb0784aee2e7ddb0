"""The shipped task that lets waiting processes try again now, with a reconciler and a runner on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import tenacity

from orchestrator.db.session import Database
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import StepList, begin, done, retrystep, workflow
from orchestrator.workflows.tasks.resume_workflows import task_resume_workflows
from tests.integration.engine_bench import Bench, bench_of

HOURLY = RetryPolicy(wait=tenacity.wait_fixed(3600), limit=3)


@retrystep("Call", retry=HOURLY)
async def call() -> None:
    raise ConnectionError("not today")


@workflow("Calls")
def calling() -> StepList:
    return begin >> call >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    await database.pool.execute("DELETE FROM workflows")
    async with bench_of(database, amqp_url, monkeypatch, __name__, calling, task_resume_workflows) as one:
        yield one


async def resume_all(bench: Bench) -> object:
    """Run the task and return what it says in its state."""
    process_id = await bench.run("task_resume_workflows")
    row = await bench.row(process_id)
    assert row["status"] == "completed"
    return row["state"]


async def test_waiting_processes_are_tried_at_once_and_their_policy_goes_on_counting(bench: Bench) -> None:
    """B15: ``task_resume_workflows``. A limit of three tries is three tries, whoever has brought them forward."""
    runner = await bench.runner()
    process_id = await bench.run("calling", runner)
    statuses = [(await bench.row(process_id))["status"]]
    for _ in range(2):
        assert await resume_all(bench) == '{"resumed": 1, "resumed_by_workflow": {"calling": 1}}'
        await bench.reconciler().run_once()
        assert (await bench.row(process_id))["status"] == "running"
        await bench.run_step(process_id, runner, "waiting" if len(statuses) < 2 else "failed")
        statuses.append((await bench.row(process_id))["status"])
    assert statuses == ["waiting", "waiting", "failed"]


async def test_what_is_due_already_or_has_failed_is_left_alone(bench: Bench) -> None:
    process_id = await bench.run("calling")
    assert '"resumed": 1' in str(await resume_all(bench))
    before = await bench.row(process_id)
    assert await resume_all(bench) == '{"resumed": 0, "resumed_by_workflow": {}}'
    assert await bench.row(process_id) == before
    await bench.database.pool.execute("UPDATE processes SET status = 'failed' WHERE process_id = $1", process_id)
    assert '"resumed": 0' in str(await resume_all(bench))


async def test_the_state_has_counts_and_no_ids(bench: Bench) -> None:
    first = await bench.run("calling")
    await _multiply(bench.database, first, 2000)
    assert await resume_all(bench) == '{"resumed": 2001, "resumed_by_workflow": {"calling": 2001}}'
    late = await bench.database.pool.fetchval(
        "SELECT count(*) FROM processes WHERE status = 'waiting' AND wake_at > now()"
    )
    assert late == 0


async def test_a_process_that_is_being_handled_is_not_waited_for(bench: Bench) -> None:
    """Its row is locked: an operator retries it, for example. The task neither waits nor resumes it a second time."""
    process_id = await bench.run("calling")
    async with bench.database.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM processes WHERE process_id = $1 FOR NO KEY UPDATE", process_id)
        assert '"resumed": 0' in str(await resume_all(bench))


async def _multiply(database: Database, process_id: UUID, number: int) -> None:
    """Copy a process, without its log."""
    columns = await database.pool.fetchval(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'processes'::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' AND attname <> 'process_id'"
    )
    await database.pool.execute(
        f"INSERT INTO processes (process_id, {columns}) SELECT gen_random_uuid(), {columns}"
        " FROM processes, generate_series(1, $2::int) WHERE process_id = $1",
        process_id,
        number,
    )
