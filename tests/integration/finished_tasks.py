"""Finished tasks, and other processes, that ended some time ago; and a clean-up of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.workflow import Step
from orchestrator.workflows.tasks.cleanup_tasks_log import delete_expired_records, delete_expired_tasks

INSERT = """
WITH made AS (
    INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence,
                           failures, lost, rewinds, state, started_by, actor, announced, started_at, updated_at)
    SELECT gen_random_uuid(), w.workflow_id, w.name, $3, $4, 0, 'a', true, 1, 2, 0, 0, 0, '{}', 'me', 'me', $5,
           now() - $6::float8 * interval '24 hours', now() - $6::float8 * interval '24 hours' - n * interval '1 ms'
      FROM workflows w, generate_series(1, $2::int) n WHERE w.name = $1 AND w.deleted_at IS NULL
    RETURNING process_id
), logged AS (
    INSERT INTO process_steps (process_id, sequence, kind, name, attempt, status, delta, author, started_at, finished_at)
    SELECT process_id, n, 'process', 'created', 0, 'created', '{}', 'me', now(), now() FROM made, generate_series(1, 2) n
), commanded AS (
    INSERT INTO process_commands (process_id, key, digest, sequence) SELECT process_id, 'a', '', 1 FROM made
), called AS (
    INSERT INTO callbacks (token_hash, process_id, position, step, status)
    SELECT convert_to(process_id::text, 'UTF8'), process_id, 0, 'a', 'used' FROM made
)
SELECT process_id FROM made
"""
CHILDREN = ("process_steps", "process_commands", "callbacks")


async def add(
    database: Database,
    number: int = 1,
    *,
    workflow: str = "some",
    is_task: bool = True,
    status: str = "completed",
    announced: int = 2,
    days: float = 4,
) -> list[UUID]:
    """Add processes that ended ``days`` ago, each with two log entries, a command and a callback; return their ids."""
    await database.pool.execute(
        "INSERT INTO workflows (name, target, is_task) VALUES ($1, 'SYSTEM', true) ON CONFLICT DO NOTHING", workflow
    )
    rows = await database.pool.fetch(INSERT, workflow, number, is_task, status, announced, days)
    return [row["process_id"] for row in rows]


async def left(database: Database) -> set[UUID]:
    """Return which processes there are; each has its log, and nothing is left of the others."""
    async with database.pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
        found = {row["process_id"] for row in await connection.fetch("SELECT process_id FROM processes")}
        for table in CHILDREN:
            rows = await connection.fetch(f"SELECT DISTINCT process_id FROM {table}")
            assert {row["process_id"] for row in rows} == found, table
    return found


@asynccontextmanager
async def step_session(database: Database) -> AsyncIterator[StepSession]:
    """Provide what a step gets as ``session``."""
    session = StepSession(database.engine)
    try:
        yield session
    finally:
        assert not session.used, "the step's own transaction has nothing to do"
        await session.discard()


async def run(database: Database, step: Step) -> dict[str, Any]:
    """Run a step of the clean-up, and return what it adds to the state."""
    assert step.function is not None
    async with step_session(database) as session:
        made: Any = step.function(session)
        found: dict[str, Any] = await made
    return found


async def clean_up(database: Database) -> dict[str, Any]:
    """Delete the tasks that have expired."""
    return await run(database, delete_expired_tasks)


async def clean_up_records(database: Database) -> dict[str, Any]:
    """Delete the other records that have expired."""
    return await run(database, delete_expired_records)
