"""Notes on processes, and the deletion of finished tasks."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from orchestrator.db.processes.queries import read_process
from orchestrator.db.session import Database
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError
from orchestrator.services.notes import delete, set_note
from orchestrator.text import MAX_NOTE

INSERT = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, announced)
SELECT $1, workflow_id, name, $2, $3, 0, 'a', true, 1, 1, 0, 0, 0, '{}', 'me', 'me', $4 FROM workflows WHERE name = 'some'
"""


async def add(database: Database, *, status: str = "completed", is_task: bool = True, announced: int = 1) -> UUID:
    """Add a process with one log entry, a callback and a command."""
    process_id = uuid4()
    pool = database.pool
    await pool.execute("INSERT INTO workflows (name, target) VALUES ('some', 'SYSTEM') ON CONFLICT DO NOTHING")
    await pool.execute(INSERT, process_id, is_task, status, announced)
    await pool.execute(
        "INSERT INTO process_steps (process_id, sequence, kind, name, attempt, status, delta, author, started_at, finished_at)"
        " VALUES ($1, 1, 'process', 'created', 0, 'created', '{}', 'me', now(), now())",
        process_id,
    )
    await pool.execute(
        "INSERT INTO callbacks (token_hash, process_id, position, step, status) VALUES ($1, $2, 0, 'a', 'used')",
        process_id.bytes,
        process_id,
    )
    return process_id


async def note(database: Database, process_id: UUID, text: str | None, user: str = "ana") -> str | None:
    async with database.transaction() as session:
        return await set_note(session, process_id, text, user)


async def remove(database: Database, process_id: UUID, user: str = "ana") -> None:
    async with database.transaction() as session:
        await delete(session, process_id, user)


async def count(database: Database, table: str) -> int:
    found: int = await database.pool.fetchval(f"SELECT count(*) FROM {table}")
    return found


async def test_a_note_says_who_has_changed_it_last_and_leaves_the_process_as_it_is(database: Database) -> None:
    process_id = await add(database, status="running")
    before = await database.pool.fetchrow("SELECT sequence, updated_at FROM processes")

    assert await note(database, process_id, "  ticket 4711\nsee mail ") == "ticket 4711\nsee mail"
    assert await note(database, process_id, "done", "bob") == "done"

    async with database.transaction() as session:
        found = await read_process(session, process_id)
    assert (found.note, found.noted_by) == ("done", "bob")
    assert found.noted_at is not None
    assert await database.pool.fetchrow("SELECT sequence, updated_at FROM processes") == before


@pytest.mark.parametrize("empty", [None, "", "  \n"])
async def test_a_note_without_words_is_removed(database: Database, empty: str | None) -> None:
    process_id = await add(database)
    await note(database, process_id, "ticket 4711")
    assert await note(database, process_id, empty, "bob") is None
    assert tuple(await database.pool.fetchrow("SELECT note, noted_by FROM processes") or ()) == (None, "bob")


@pytest.mark.parametrize("text", ["x" * (MAX_NOTE + 1), "a\0b", "\ud800"], ids=["long", "NUL", "half a character"])
async def test_a_note_that_cannot_be_kept_is_refused(database: Database, text: str) -> None:
    process_id = await add(database)
    with pytest.raises(InvalidInputError, match="the note has"):
        await note(database, process_id, text)


async def test_an_unknown_process_has_no_note_and_is_not_deleted(database: Database) -> None:
    with pytest.raises(NotFoundError):
        await note(database, uuid4(), "x")
    with pytest.raises(NotFoundError):
        await remove(database, uuid4())


@pytest.mark.parametrize("status", ["completed", "aborted"])
async def test_a_finished_task_is_deleted_with_everything_and_who_did_it_stays(database: Database, status: str) -> None:
    process_id = await add(database, status=status)
    await remove(database, process_id)

    assert [await count(database, table) for table in ("processes", "process_steps", "callbacks")] == [0, 0, 0]
    left = await database.pool.fetchrow(
        "SELECT process_id, workflow, status, started_by, deleted_by FROM deleted_processes"
    )
    assert tuple(left or ()) == (process_id, "some", status, "me", "ana")


@pytest.mark.parametrize(
    "status",
    ["running", "suspended", "waiting", "awaiting_callback", "failed", "api_unavailable", "inconsistent_data"],
)
async def test_an_unfinished_task_is_not_deleted(database: Database, status: str) -> None:
    process_id = await add(database, status=status)
    with pytest.raises(InvalidInputError, match=f"is {status}: only one that is completed or aborted is deleted"):
        await remove(database, process_id)
    assert await count(database, "processes") == 1


async def test_a_workflow_that_is_no_task_is_not_deleted(database: Database) -> None:
    process_id = await add(database, is_task=False)
    with pytest.raises(InvalidInputError, match="is no task"):
        await remove(database, process_id)


async def test_events_that_the_broker_has_not_confirmed_are_not_deleted(database: Database) -> None:
    process_id = await add(database, announced=0)
    with pytest.raises(ConflictError, match="has not confirmed all events"):
        await remove(database, process_id)


async def test_of_twenty_deletions_at_once_one_is_recorded(database: Database) -> None:
    process_id = await add(database)
    found = await asyncio.gather(
        *(remove(database, process_id, f"user {number}") for number in range(20)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in found) == ["NoneType", *["NotFoundError"] * 19]
    assert await count(database, "deleted_processes") == 1
