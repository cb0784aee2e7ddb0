"""A consumer ends when it is told to, whatever state the servers are in."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from consumers import runner as runners
from consumers.attempt import ClaimedAttempt
from orchestrator.db.session import Database
from orchestrator.engine.events import Loss
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.integration.engine_bench import bench_of


@step("Sleep")
async def sleep() -> None:
    await asyncio.Event().wait()


@workflow("Sleeps")
def sleeps() -> StepList:
    return init >> sleep >> done


async def test_draining_ends_although_the_database_is_away(
    database: Database, database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be given back is found by a coordinator: the consumer is going to be silent."""
    monkeypatch.setattr(runners, "RELEASE_TIMEOUT", 0.5)
    own = Database(database_url, pool_size=2, connect_timeout=1, application_name="a consumer")
    await own.open()
    async with bench_of(database, amqp_url, monkeypatch, __name__, sleeps) as bench:
        runner = await bench.runner(database=own)
        process_id = await bench.start("sleeps")
        await runner.take(await bench.command(process_id))
        await own.pool.close()  # as far as this consumer can see, the database is away from now on
        await asyncio.wait_for(runner.drain(0.1), 60)
        row = await bench.row(process_id)
        await own.close()
    assert row["status"] == "running"
    assert row["claimed_by"] is not None


async def test_draining_gives_back_what_does_not_end(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench_of(database, amqp_url, monkeypatch, __name__, sleeps) as bench:
        runner = await bench.runner()
        processes = [await bench.start("sleeps") for _ in range(20)]
        for process_id in processes:
            await runner.take(await bench.command(process_id))
        await runner.drain(0.1)
        claims = [(await bench.row(process_id))["claimed_by"] for process_id in processes]
    assert claims == [None] * 20


async def test_a_heartbeat_does_not_take_what_is_being_given_back_for_lost(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says what it was, and the next attempt begins at once."""
    async with bench_of(database, amqp_url, monkeypatch, __name__, sleeps) as bench:
        runner = await bench.runner()
        process_id = await bench.start("sleeps")
        await runner.take(await bench.command(process_id))
        release, may_release, asked = runner._completion.release, asyncio.Event(), asyncio.Event()

        async def release_late(attempt: ClaimedAttempt, loss: Loss, because: str = "") -> None:
            if loss is Loss.GIVEN_BACK:
                asked.set()
                await may_release.wait()
            await release(attempt, loss, because)

        monkeypatch.setattr(runner._completion, "release", release_late)
        draining = asyncio.create_task(runner.drain(0.1))
        await asked.wait()
        claimed_at = (await bench.row(process_id))["claimed_at"]
        await runner.compare(claimed_at + timedelta(minutes=1), {process_id: claimed_at})
        may_release.set()
        await draining
        assert (await bench.row(process_id))["claimed_by"] is None
        rows = await database.pool.fetch(
            "SELECT name, status FROM process_steps WHERE process_id = $1 ORDER BY sequence", process_id
        )
    assert [row["name"] for row in rows][-1] == "given back", rows
