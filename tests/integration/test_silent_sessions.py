"""Sessions that the network has cut off in a transaction: the server ends them, and no step that merely waits for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from orchestrator.db import bounds, silence
from orchestrator.db.bounds import IDLE_LIMIT, LIMIT_FROM_HERE
from orchestrator.db.session import Database, get_driver, is_connection_error
from orchestrator.db.silent_sessions import end_silent_sessions
from orchestrator.db.step_session import StepSession
from orchestrator.hosts import session_name
from tests.acceptance.proxy import Proxy, proxied
from tests.integration.test_lost_claims import add_consumer
from tests.integration.waiting import until

PATIENCE = 60.0
"""Seconds until a wait is taken to be endless."""
LOCK = "SELECT pg_advisory_xact_lock(4711)"
LONG = 3600.0
Transaction = Callable[[Database], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def use_case(database: Database) -> AsyncIterator[Any]:
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
        yield await get_driver(session)


@asynccontextmanager
async def own_statements(database: Database) -> AsyncIterator[Any]:
    async with database.pool.acquire() as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def request_with_authors_code(database: Database) -> AsyncIterator[Any]:
    """What a form holds while it runs; the request is run once more when its connection is lost."""
    held: asyncio.Queue[AsyncSession] = asyncio.Queue()
    over = asyncio.Event()

    async def act(session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))
        await held.put(session)
        await over.wait()
        await session.execute(text("SELECT 1"))

    running = asyncio.create_task(database.author_code.run("a workflow", act))
    try:
        yield await get_driver(await held.get())
    finally:
        over.set()
        await running


async def lock_is_free(database: Database) -> None:
    """Wait until another session can take the lock."""
    async with asyncio.timeout(PATIENCE), database.transaction() as session:
        await session.execute(text(LOCK))


@pytest.fixture
async def impatient(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Provide a database whose sessions may be silent for a second."""
    monkeypatch.setattr(bounds, "SHORTEST_PAUSE", 1.0)
    monkeypatch.setattr(bounds, "AUTHORS_PAUSE", 1.0)
    opened = Database(database_url, pool_size=4, connect_timeout=30, application_name="impatient", silent_after=1)
    await opened.open()
    yield opened
    await opened.close()


@pytest.mark.parametrize("transaction", [use_case, own_statements])
async def test_a_silent_transaction_of_the_engine_is_ended_by_the_server_and_a_step_s_is_not(
    impatient: Database, database: Database, transaction: Transaction
) -> None:
    step = StepSession(impatient.engine)
    await step.execute(text("SELECT 1"))
    with pytest.raises(Exception) as caught:
        async with transaction(impatient) as connection:
            await connection.execute(LOCK)
            await lock_is_free(database)
    assert is_connection_error(caught.value)

    # It has waited for longer, and goes on. Once its outcome is stored it only commits.
    await step.execute(text(LOCK))
    await step.execute(text(f"SELECT {LIMIT_FROM_HERE}"))
    await lock_is_free(database)
    await step.discard()


async def test_a_silent_request_that_calls_code_of_authors_is_ended_and_is_run_once_more(
    impatient: Database, database: Database
) -> None:
    with capture_logs() as lines:
        async with request_with_authors_code(impatient) as connection:
            await connection.execute(LOCK)
            await lock_is_free(database)
            await until(connection.is_closed, "the loss is seen", PATIENCE)
    assert [line["event"] for line in lines] == ["a request has lost its connection; once more"]


async def test_the_limits_of_sessions_and_what_the_administrator_has_set(database_url: str, database: Database) -> None:
    """His limit counts for steps, as it always has."""
    name = await database.pool.fetchval("SELECT current_database()")
    await database.pool.execute(f"ALTER DATABASE \"{name}\" SET {IDLE_LIMIT} = '7min'")
    opened = Database(database_url, pool_size=2, connect_timeout=30, application_name="limits", silent_after=12)
    await opened.open()
    try:
        settings = (IDLE_LIMIT, "tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
        assert [await opened.pool.fetchval(f"SHOW {one}") for one in settings] == ["12s", "6", "2", "3"]
        async with opened.transaction() as session:
            assert await session.scalar(text(f"SHOW {IDLE_LIMIT}")) == "12s"
        shown = await opened.author_code.run("any", lambda session: session.scalar(text(f"SHOW {IDLE_LIMIT}")))
        assert shown == "100s"
        step = StepSession(opened.engine)
        assert await step.scalar(text(f"SHOW {IDLE_LIMIT}")) == "7min"
        await step.execute(text(f"SELECT {LIMIT_FROM_HERE}"))
        assert await (await get_driver(step)).fetchval(f"SHOW {IDLE_LIMIT}") == "12s"
        await step.discard()
        # Nothing of it is left for the next one on the same connection.
        step = StepSession(opened.engine)
        assert await step.scalar(text(f"SHOW {IDLE_LIMIT}")) == "7min"
        await step.discard()
    finally:
        await opened.close()


class Consumers:
    """Consumers of one host and process id, as after a container's restart, each with a step's session."""

    def __init__(self, database: Database, url: str) -> None:
        self._database, self._url = database, url
        self._opened: list[Database] = []
        self.sessions: list[StepSession] = []

    async def add(self, *, silent: float, limit: float) -> StepSession:
        """Return the session of a step that has sent something."""
        async with self._database.transaction() as session:
            consumer: UUID = await add_consumer(session, silent=silent, limit=limit)
        name = session_name("consumer", consumer)
        opened = Database(self._url, pool_size=1, connect_timeout=30, application_name=name)
        self._opened.append(opened)
        step = StepSession(opened.engine)
        self.sessions.append(step)
        await step.execute(text("SELECT 1"))
        return step

    async def close(self) -> None:
        """Close everything."""
        for step in self.sessions:
            await step.discard()
        for one in self._opened:
            await one.close()


@pytest.fixture
async def consumers(database: Database, database_url: str) -> AsyncIterator[Consumers]:
    """Provide consumers of which there are none yet."""
    made = Consumers(database, database_url)
    yield made
    await made.close()


async def test_the_sessions_of_a_dead_consumer_are_ended_and_no_others(
    database: Database, consumers: Consumers
) -> None:
    alive = await consumers.add(silent=0, limit=LONG)
    patient = await consumers.add(silent=60, limit=LONG)
    busy = await consumers.add(silent=60, limit=1)
    dead = await consumers.add(silent=60, limit=1)
    others = StepSession(database.engine)
    await others.execute(text(LOCK))
    working = asyncio.create_task(busy.execute(text(LOCK)))
    pid = (await get_driver(dead)).get_server_pid()

    assert await end_silent_sessions(database.pool, reads_for=0.5) == [], "nobody could beat while it was away"
    ended: list[int] = []

    async def is_ended() -> bool:
        ended.extend(one.server_process for one in await end_silent_sessions(database.pool, reads_for=LONG))
        return bool(ended)

    await until(is_ended, "the session is ended", PATIENCE)
    assert set(ended) == {pid}
    with pytest.raises(Exception) as caught:
        await dead.execute(text("SELECT 1"))
    assert is_connection_error(caught.value)
    for step in (alive, patient, others):
        assert await step.scalar(text("SELECT 1")) == 1
    await others.discard()
    await working


@pytest.mark.parametrize("answers", [True, False], ids=["one connection", "all"])
async def test_what_a_program_has_thrown_away_it_ends_in_the_server_as_well(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """So the next attempt of a step does not wait for what its own lost session has locked."""
    monkeypatch.setattr(silence, "SUSPECT_AFTER", 0.5)
    proxy: Proxy
    with proxied(database_url) as (proxy, url):
        behind = Database(
            url, pool_size=3, connect_timeout=2, application_name=session_name("consumer", uuid4()), silent_after=1
        )
        await behind.open()
        step = StepSession(behind.engine)
        await step.execute(text(LOCK))
        proxy.swallow()
        lost = asyncio.create_task(step.execute(text("SELECT 2")))
        await until(lambda: bool(proxy.dropped), "the statement is lost")
        if answers:
            proxy.pass_on()
        done, _ = await asyncio.wait({lost}, timeout=PATIENCE)
        assert done
        error = lost.exception()
        assert error is not None
        assert is_connection_error(error)
        proxy.pass_on()
        await lock_is_free(database)
        async with asyncio.timeout(PATIENCE):
            await step.discard()
            await behind.close()
