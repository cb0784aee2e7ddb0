"""A table is altered while programs run whose connections have prepared statements on it."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from orchestrator.db.session import Database, explain_transient, is_database_loss

QUERY = "SELECT * FROM altered"


@pytest.fixture
async def altered(database: Database) -> Database:
    await database.pool.execute("CREATE TABLE altered (id int PRIMARY KEY); INSERT INTO altered VALUES (1)")
    return database


async def test_a_step_whose_statement_was_prepared_before_is_repeated_and_succeeds(altered: Database) -> None:
    """SQLAlchemy prepares all its statements anew after the first one that was refused."""
    async with altered.transaction() as session:
        assert len((await session.execute(text(QUERY))).one()) == 1
    await altered.pool.execute("ALTER TABLE altered ADD COLUMN more int")
    with pytest.raises(DBAPIError, match="cached statement plan is invalid") as refused:
        async with altered.transaction() as session:
            await session.execute(text(QUERY))
    assert is_database_loss(refused.value), "the engine repeats such an attempt, and does not blame the step"
    async with altered.transaction() as session:
        assert len((await session.execute(text(QUERY))).one()) == 2


async def test_a_message_whose_statement_was_prepared_before_is_kept_and_tried_again(altered: Database) -> None:
    async with altered.pool.acquire() as connection:
        await connection.fetch(QUERY)
        await altered.pool.execute("ALTER TABLE altered ADD COLUMN more int")
        with pytest.raises(Exception, match="cached statement plan is invalid") as refused:
            async with connection.transaction():
                await connection.fetch(QUERY)
        assert explain_transient(refused.value) is not None
        async with connection.transaction():
            assert len((await connection.fetch(QUERY))[0]) == 2
