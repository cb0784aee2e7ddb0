"""Connections of the engine's own statements come back to their pool at once, and whatever happens to who has used them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.db.session import Database

PATIENCE = 20.0
ONE_AND_THE_SAME = "SELECT pg_backend_pid()"


@pytest.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """Provide a database with one connection for the engine's own statements."""
    opened = Database(
        database_url, pool_size=1, engine_connections=1, connect_timeout=30, application_name="single connection"
    )
    await opened.open()
    yield opened
    await opened.close()


async def test_a_connection_comes_back_without_a_task_and_a_turn_of_the_event_loop(single: Database) -> None:
    first = await single.pool.fetchval(ONE_AND_THE_SAME)
    turns: list[None] = []
    async with single.pool.acquire():
        tasks = asyncio.all_tasks()
        asyncio.get_running_loop().call_soon(turns.append, None)
    assert single.pool.get_idle_size() == 1
    assert (asyncio.all_tasks(), turns) == (tasks, [])
    assert await single.pool.fetchval(ONE_AND_THE_SAME) == first


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_connection_comes_back_from_a_statement_that_was_cancelled(
    single: Database, cancellations: int
) -> None:
    asked = asyncio.Event()
    first = await single.pool.fetchval(ONE_AND_THE_SAME)

    async def ask() -> None:
        async with single.pool.acquire() as connection:
            asked.set()
            await connection.fetchval("SELECT pg_sleep(600)")

    task = asyncio.create_task(ask())
    async with asyncio.timeout(PATIENCE):
        await asked.wait()
        for _ in range(cancellations):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await single.pool.fetchval(ONE_AND_THE_SAME) == first, "another one was opened: the first was lost"


async def test_who_waits_for_a_connection_gets_it_before_the_task_that_gives_it_back_and_wants_it_again(
    single: Database,
) -> None:
    got = list[str]()

    async def take(who: str, times: int) -> None:
        for _ in range(times):
            async with single.pool.acquire():
                got.append(who)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(take("again and again", 10))
        tasks.create_task(take("once", 1))
    assert got.index("once") <= 2
