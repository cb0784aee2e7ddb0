"""What the log says while PostgreSQL is away."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.db.session import CONNECTION_ERRORS, Database
from tests.forwarder import Forwarder, place_of, through

TURNS = 20
"""Of the event loop: more than a task of the client library needs to begin, fail and complain."""


async def test_the_client_library_does_not_speak_beside_us_when_postgresql_is_away(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of our loops says in one line that it is away; a pool that connects by itself would add a traceback to each."""
    async with Forwarder(lambda: place_of(database_url)) as server:
        database = Database(
            through(database_url, server.port), pool_size=1, connect_timeout=5, application_name="tests"
        )
        await database.open()
        assert await database.pool.fetchval("SELECT 1") == 1
        await server.close()
        for _ in range(3):
            with pytest.raises(CONNECTION_ERRORS):
                await database.pool.fetchval("SELECT 1")
            for _ in range(TURNS):
                await asyncio.sleep(0)
        await database.close()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("asyncpg")] == []
