"""The session of a step: everything works but ending the transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.errors import CommitNotAllowedError
from tests.integration.step_sessions import Item, guard, names


@pytest.fixture
async def guarded(database: Database) -> Database:
    return await guard(database)


@pytest.fixture
async def session(guarded: Database) -> AsyncIterator[StepSession]:
    made = StepSession(guarded.engine)
    yield made
    await made.discard()


async def _session_commit(session: StepSession) -> None:
    await session.commit()


async def _session_rollback(session: StepSession) -> None:
    await session.rollback()


async def _session_begin(session: StepSession) -> None:
    async with session.begin():
        pass


async def _session_close(session: StepSession) -> None:
    await session.close()


async def _sync_commit(session: StepSession) -> None:
    await session.run_sync(lambda sync: sync.commit())


async def _connection_commit(session: StepSession) -> None:
    await (await session.connection()).commit()


async def _connection_rollback(session: StepSession) -> None:
    await (await session.connection()).rollback()


def _sql(statement: str) -> Callable[[StepSession], Awaitable[None]]:
    async def send(session: StepSession) -> None:
        await session.execute(text(statement))

    return send


WAYS = {
    "session.commit": _session_commit,
    "session.rollback": _session_rollback,
    "session.begin": _session_begin,
    "session.close": _session_close,
    "run_sync commit": _sync_commit,
    "connection.commit": _connection_commit,
    "connection.rollback": _connection_rollback,
    **{
        statement: _sql(statement)
        for statement in (
            "COMMIT",
            "commit;",
            "  /* why not */ Commit",
            "-- why not\nEND",
            "end transaction",
            "ROLLBACK",
            "rollback work",
            "ABORT",
            "BEGIN",
            "START TRANSACTION",
            "PREPARE TRANSACTION 'x'",
        )
    },
}


@pytest.mark.parametrize("way", WAYS)
async def test_ending_the_transaction_is_refused(guarded: Database, session: StepSession, way: str) -> None:
    """B6: in every form; and what the step wrote is not stored, even if it swallows the refusal."""
    session.add(Item(number=1, name="one"))
    await session.flush()
    with pytest.raises(CommitNotAllowedError, match="a step may not"):
        await WAYS[way](session)
    with pytest.raises(CommitNotAllowedError):
        await session.hand_over()
    await session.discard()
    assert await names(guarded) == []


async def test_savepoints_are_allowed(guarded: Database, session: StepSession) -> None:
    """B6: the author may undo a part of a step's work."""
    session.add(Item(number=1, name="one"))
    async with session.begin_nested():
        session.add(Item(number=2, name="two"))
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            session.add(Item(number=3, name="two"))
    await session.execute(text("SAVEPOINT mine"))
    await session.execute(text("DELETE FROM items"))
    await session.execute(text("ROLLBACK TO SAVEPOINT mine"))
    assert await session.mark_is_intact()
    await session.hand_over()
    await session.commit()
    assert await names(guarded) == ["one", "two"]


async def test_a_commit_through_the_driver_is_noticed_by_the_mark(guarded: Database, session: StepSession) -> None:
    """B6: what cannot be refused beforehand is found before the engine commits."""
    await session.execute(text("INSERT INTO items VALUES (1, 'one')"))
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    await raw.driver_connection.execute("COMMIT")
    assert not await session.mark_is_intact()


async def test_a_session_that_is_not_used_takes_no_connection(guarded: Database) -> None:
    sessions = [StepSession(guarded.engine) for _ in range(50)]
    assert not any(one.used for one in sessions)
    await asyncio.gather(*(one.discard() for one in sessions))


async def test_pending_objects_count_as_use(guarded: Database, session: StepSession) -> None:
    session.add(Item(number=1, name="one"))
    assert session.used
    await session.hand_over()
    await session.commit()
    assert await names(guarded) == ["one"]


async def test_a_refused_commit_counts_as_use(session: StepSession) -> None:
    """B6: else a step that swallows the refusal, and has written nothing, would succeed."""
    with pytest.raises(CommitNotAllowedError):
        await session.commit()
    assert session.used


async def test_a_failed_flush_shows_the_database_error(guarded: Database, session: StepSession) -> None:
    """The roll back that SQLAlchemy does after a failed flush is not the step's doing and must not hide the real error."""
    session.add_all([Item(number=1, name="one"), Item(number=2, name="one")])
    with pytest.raises(IntegrityError, match="items_name_key"):
        await session.flush()
