"""What the log says while PostgreSQL is away."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.db.session import CONNECTION_ERRORS, Database

TURNS = 20
"""Of the event loop: more than a task of the client library needs to begin, fail and complain."""


async def test_the_client_library_does_not_speak_beside_us_when_postgresql_is_away(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of our loops says in one line that it is away; a pool that connects by itself would add a traceback to each."""
    nowhere = database.pool
    nowhere.set_connect_args(host="127.0.0.1", port=1, timeout=5)
    async with database.transaction() as session:
        connection = await session.connection()
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    for _ in range(3):
        with pytest.raises(CONNECTION_ERRORS):
            await nowhere.fetchval("SELECT 1")
        for _ in range(TURNS):
            await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("asyncpg")] == []
