"""Each connection of a session is checked before it is used, so that no use case begins on one that the server has ended."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text

from orchestrator.db.session import Database
from tests.benchmarks.statements import CountingProxy


def connect(url: str) -> Database:
    return Database(url, pool_size=1, connect_timeout=30, application_name="checked connections")


async def ask(database: Database) -> int:
    """Return the server process that carries out a transaction."""
    async with database.transaction() as session:
        found: int = await session.scalar(text("SELECT pg_backend_pid()"))
    return found


async def test_the_check_is_one_statement(database_url: str) -> None:
    async with CountingProxy(database_url) as proxy:
        database = connect(proxy.url)
        await database.open()
        for _ in range(2):
            await ask(database)
        proxy.counts.clear()

        await ask(database)

        assert proxy.counts["executions"] == len(["the check", "BEGIN", "SELECT", "COMMIT"])
        await database.close()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_connection_that_the_server_has_ended_is_replaced(database_url: str, times: int) -> None:
    database = connect(database_url)
    await database.open()
    other = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    for _ in range(times):
        first = await ask(database)
        assert await ask(database) == first

        await other.execute("SELECT pg_terminate_backend($1, 60000)", first)

        assert await ask(database) != first
    await other.close()
    await database.close()
