"""The end of a step's session: what is left behind does nothing with it, and no connection carries anything to the next step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.errors import ConcurrentSessionError, SessionEndedError
from tests.integration.step_sessions import Item, checked_out, guard, names
from tests.integration.waiting import until


@pytest.fixture
async def guarded(database: Database) -> Database:
    return await guard(database)


@pytest.fixture
async def session(guarded: Database) -> AsyncIterator[StepSession]:
    made = StepSession(guarded.engine)
    yield made
    await made.discard()


async def _execute(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO items VALUES (9, 'late')"))


async def _add_and_flush(session: AsyncSession) -> None:
    session.add(Item(number=9, name="late"))
    await session.flush()


async def _get(session: AsyncSession) -> None:
    await session.get(Item, 1)


async def _begin(session: AsyncSession) -> None:
    async with session.begin():
        pass


async def _savepoint(session: AsyncSession) -> None:
    async with session.begin_nested():
        pass


async def _stream(session: AsyncSession) -> None:
    await session.stream(text("SELECT 1"))


async def _ask_for_the_connection(session: AsyncSession) -> None:
    await session.connection()


async def _sync_execute(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.execute(text("SELECT 1")))


async def _engine_connection(session: AsyncSession) -> None:
    assert isinstance(session.bind, AsyncEngine)
    async with session.bind.connect():
        pass


async def _engine_transaction(session: AsyncSession) -> None:
    assert isinstance(session.bind, AsyncEngine)
    async with session.bind.begin() as connection:
        await connection.execute(text("INSERT INTO items VALUES (9, 'late')"))


LATE = {
    "commit": AsyncSession.commit,
    "rollback": AsyncSession.rollback,
    "begin": _begin,
    "close": AsyncSession.close,
    "reset": AsyncSession.reset,
    "invalidate": AsyncSession.invalidate,
    "execute": _execute,
    "add and flush": _add_and_flush,
    "get": _get,
    "begin_nested": _savepoint,
    "stream": _stream,
    "connection": _ask_for_the_connection,
    "run_sync": _sync_execute,
    "its engine's connect": _engine_connection,
    "its engine's begin": _engine_transaction,
}


async def left_behind(action: Awaitable[object]) -> None:
    """As a task does it that is not the engine's."""
    await asyncio.ensure_future(action)


@pytest.mark.parametrize("how", LATE)
@pytest.mark.parametrize("end", ["discarded", "handed over", "committed"])
async def test_after_the_step_its_session_does_nothing_and_takes_no_connection(
    guarded: Database, session: StepSession, end: str, how: str
) -> None:
    """B5, B6: a task that the step has left behind, or the step itself, which has swallowed its cancellation."""
    session.add(Item(number=1, name="one"))
    if end == "discarded":
        await session.flush()
        await session.discard()
    else:
        await session.hand_over()
        if end == "committed":
            await session.conclude()
    with pytest.raises(SessionEndedError, match="the step has ended"):
        await left_behind(LATE[how](session))
    if end == "handed over":
        await session.conclude()
    assert checked_out(guarded) == 0
    assert await names(guarded) == ([] if end == "discarded" else ["one"])


@pytest.mark.parametrize("end", ["discarded", "committed"])
async def test_a_connection_that_a_step_has_kept_is_of_no_use_after_it(
    guarded: Database, session: StepSession, end: str
) -> None:
    """B6: SQLAlchemy's, and the driver's below it, which others would otherwise get from the pool."""
    connection = await session.connection()
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    if end == "committed":
        await session.hand_over()
        await session.conclude()
    await session.discard()
    with pytest.raises(InvalidRequestError, match="closed"):
        await left_behind(connection.execute(text("SELECT 1")))
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await raw.execute("SELECT 1")
    assert checked_out(guarded) == 0


@pytest.mark.parametrize("way", ["commit", "rollback", "execute"])
async def test_a_connection_that_a_step_has_kept_is_of_no_use_while_the_engine_stores(
    guarded: Database, session: StepSession, way: str
) -> None:
    """B6: the engine stores all or, if SQLAlchemy no longer lets it, nothing."""
    session.add(Item(number=1, name="one"))
    connection = await session.connection()
    await session.hand_over()
    ways = {"commit": connection.commit, "rollback": connection.rollback}
    late = ways[way]() if way in ways else connection.execute(text("INSERT INTO items VALUES (9, 'late')"))
    with pytest.raises(SessionEndedError):
        await left_behind(late)
    assert await names(guarded) == []
    if way in ways:
        with pytest.raises(InvalidRequestError):
            await session.conclude()
        await session.discard()
    else:
        await session.conclude()
    assert checked_out(guarded) == 0
    assert await names(guarded) == ([] if way in ways else ["one"])


async def test_a_statement_that_is_under_way_when_the_step_ends_fails_the_step(
    guarded: Database, session: StepSession
) -> None:
    """B5: it would be sent on the connection that the engine commits on."""
    await session.execute(text("INSERT INTO items VALUES (1, 'one')"))
    own = await session.scalar(text("SELECT pg_backend_pid()"))
    late = asyncio.create_task(session.execute(text("SELECT pg_sleep(60)")))
    busy = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
    await until(lambda: guarded.pool.fetchval(busy, own), "it sleeps")
    with pytest.raises(ConcurrentSessionError, match="a session is for one task at a time"):
        await session.hand_over()
    await session.discard()
    assert checked_out(guarded) == 0
    await asyncio.wait({late}, timeout=60)
    assert late.done()
    assert late.exception() is not None
    assert await names(guarded) == []


async def test_tasks_that_begin_with_the_session_at_once_leave_no_connection_behind(
    guarded: Database, session: StepSession
) -> None:
    with pytest.raises(InvalidRequestError, match="concurrent operations are not permitted") as refused:
        await asyncio.gather(*(session.execute(text("SELECT 1")) for _ in range(3)))
    explained = session.explained(refused.value)
    assert isinstance(explained, ConcurrentSessionError)
    assert "concurrent operations are not permitted" in str(explained)
    assert "a session is for one task at a time" in str(explained)
    await session.discard()
    await until(lambda: not checked_out(guarded), "all connections are given back")


async def test_a_session_that_got_no_connection_in_its_steps_time_gives_it_back_when_it_gets_one(
    guarded: Database, session: StepSession
) -> None:
    others = [await guarded.engine.connect() for _ in range(5)]
    late = asyncio.create_task(session.execute(text("SELECT 1")))
    await asyncio.wait({late}, timeout=0.1)
    await session.discard()
    for other in others:
        await other.close()
    with pytest.raises(SessionEndedError):
        await asyncio.wait_for(late, 60)
    assert checked_out(guarded) == 0


OUTLASTING = {
    "SET search_path = pg_catalog": "SELECT current_setting('search_path')",
    "set session search_path to pg_catalog": "SELECT current_setting('search_path')",
    "/* why */ SET TIME ZONE 'Asia/Tokyo'": "SELECT current_setting('TimeZone')",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SELECT current_setting('default_transaction_read_only')",
    "SELECT set_config('my.tenant', 'a', false)": "SELECT current_setting('my.tenant', true)",
    "DO $$ BEGIN SET my.tenant = 'a'; END $$": "SELECT current_setting('my.tenant', true)",
    "PREPARE mine AS SELECT 1": "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'",
    "LISTEN mine": "SELECT count(*) FROM pg_listening_channels()",
    "CREATE TEMP TABLE items (number int)": "SELECT count(*) FROM pg_class WHERE relname = 'items' AND relpersistence = 't'",
    "CREATE TABLE pg_temp.items (number int)": "SELECT count(*) FROM pg_class WHERE relname = 'items' AND relpersistence = 't'",
    "SELECT pg_advisory_lock(42)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42",
    "SELECT pg_try_advisory_lock_shared(42)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42",
}


@pytest.mark.parametrize("statement", OUTLASTING)
async def test_what_a_step_changes_in_its_connection_does_not_reach_the_next_step(
    guarded: Database, statement: str
) -> None:
    question = text(OUTLASTING[statement])
    first, second = StepSession(guarded.engine), StepSession(guarded.engine)
    before = (await first.execute(question)).scalar_one()
    await first.execute(text(statement))
    # One listens only after the commit.
    assert (await first.execute(question)).scalar_one() != before or statement.startswith("LISTEN")
    await first.hand_over()
    await first.conclude()
    assert (await second.execute(question)).scalar_one() == before
    await second.discard()


@pytest.mark.parametrize(
    "statement",
    [
        "SET LOCAL search_path = pg_catalog",
        "SET TRANSACTION READ ONLY",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT set_config('my.tenant', 'a', true)",
        "SELECT pg_advisory_xact_lock(42)",
        "UPDATE items SET name = 'temp'",
    ],
)
async def test_what_ends_with_the_transaction_costs_no_new_connection(guarded: Database, statement: str) -> None:
    """And so does a model that is saved, or any other statement."""
    pids = set()
    for _ in range(2):
        session = StepSession(guarded.engine)
        await session.execute(text(statement))
        pids.add(await session.scalar(text("SELECT pg_backend_pid()")))
        await session.hand_over()
        await session.conclude()
    assert len(pids) == 1
