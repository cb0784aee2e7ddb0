"""A consumer that cannot store outcomes as fast as they come claims no more steps than it can store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.db.processes.advance import advance_many
from orchestrator.db.session import Database
from tests.integration import run_ahead_bench
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.run_ahead_bench import WORKFLOWS, ran, take
from tests.integration.waiting import until

PROCESSES = 300
CLAIMED_AT_MOST = 3 * 50 + 50
"""What three statements carry, and one that waits."""


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    ran.clear()
    async with bench_of(database, amqp_url, monkeypatch, run_ahead_bench.__name__, *WORKFLOWS) as one:
        yield one


async def test_commands_wait_while_a_statement_of_outcomes_does_and_all_are_taken_in_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_store = asyncio.Event()

    async def store_later(*arguments: Any) -> Any:
        await may_store.wait()
        return await advance_many(*arguments)

    monkeypatch.setattr("consumers.completion.advance_many", store_later)
    runner = await bench.runner(run_ahead=20, slots=1000)
    commands = [await bench.command(await bench.start("many")) for _ in range(PROCESSES)]
    taking = [asyncio.create_task(take(runner, command)) for command in commands]

    async def count(condition: str) -> int:
        return int(await bench.database.pool.fetchval(f"SELECT count(*) FROM processes WHERE {condition}"))

    async def rests() -> bool:
        """Whether every step that was claimed has run."""
        return runner.running > 0 and len(ran) == runner.running == await count("claimed_by IS NOT NULL")

    try:
        await until(rests, "what was claimed waits to be stored")
        assert runner.running <= CLAIMED_AT_MOST
        assert sum(not one.done() for one in taking) == PROCESSES - runner.running
    finally:
        may_store.set()
        await asyncio.gather(*taking)

    await until(lambda: runner.running == 0, "the consumer rests")
    assert await count("state ? 'n1'") == PROCESSES
