"""Connections to PostgreSQL that go silent: nothing waits for ever, and what is merely slow is let alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from orchestrator.db import silence
from orchestrator.db.session import Database, is_connection_error
from orchestrator.db.step_session import StepSession
from tests.acceptance.proxy import BOTH, Direction, Proxy, proxied
from tests.integration.waiting import until

SILENT = "PostgreSQL is silent; connections thrown away"
PATIENCE = 60.0
"""Seconds until a wait is taken to be endless."""


@pytest.fixture
def proxy_and_url(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """Provide a proxy before the database, and the URL through it."""
    with proxied(database_url) as found:
        yield found


@pytest.fixture
def proxy(proxy_and_url: tuple[Proxy, str]) -> Proxy:
    """Provide the proxy before the database."""
    return proxy_and_url[0]


@pytest.fixture
async def behind(proxy_and_url: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Provide a database behind the proxy, whose silence is soon noticed."""
    monkeypatch.setattr(silence, "SUSPECT_AFTER", 0.5)
    database = Database(
        proxy_and_url[1], pool_size=3, connect_timeout=2, application_name="tests of silence", silent_after=1
    )
    await database.open()
    yield database
    async with asyncio.timeout(PATIENCE):
        await database.close()


async def end_of(waiting: asyncio.Task[object]) -> BaseException | None:
    """Wait until a task has ended, and return how."""
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
    assert done, "it waits for ever"
    return waiting.exception()


async def ask(database: Database) -> None:
    """Send a statement as a use case does."""
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("directions", [BOTH, {Direction.TO_SERVER}, {Direction.TO_CLIENT}], ids=["both", "to", "from"])
async def test_a_statement_of_the_engine_fails_soon(
    behind: Database, proxy: Proxy, directions: frozenset[Direction]
) -> None:
    assert await behind.pool.fetchval("SELECT 1") == 1
    proxy.swallow(frozenset(directions))
    with capture_logs() as lines:
        error = await end_of(asyncio.create_task(behind.pool.fetchval("SELECT 2")))
    assert error is not None
    assert is_connection_error(error)
    (line,) = [one for one in lines if one["event"] == SILENT]
    assert line["log_level"] == "warning"
    assert line["server"] == f"127.0.0.1:{proxy.port}"
    assert line["seconds"] >= 0.5
    assert line["connections"] == 1
    proxy.pass_on()
    assert await behind.pool.fetchval("SELECT 3") == 3


async def test_a_command_that_has_only_checked_the_server_does_not_wait_for_ever(
    proxy_and_url: tuple[Proxy, str],
) -> None:
    """B42: programs look at the database before they open it, and short commands do nothing else."""
    proxy, url = proxy_and_url
    database = Database(url, pool_size=2, connect_timeout=2, application_name="tests of silence", silent_after=1)
    try:
        await database.check()
        await ask(database)
        proxy.swallow()
        error = await end_of(asyncio.create_task(ask(database)))
        assert error is not None
        assert is_connection_error(error)
    finally:
        await database.close()


async def test_a_timeout_round_a_statement_ends_although_the_pool_waits_for_the_server(
    behind: Database, proxy: Proxy
) -> None:
    assert await behind.pool.fetchval("SELECT 1") == 1
    proxy.swallow()

    async def ask() -> None:
        async with asyncio.timeout(0.1):
            await behind.pool.fetchval("SELECT 2")

    assert isinstance(await end_of(asyncio.create_task(ask())), (TimeoutError, OSError))
    proxy.pass_on()
    assert await behind.pool.fetchval("SELECT 3") == 3


async def test_a_connection_that_lost_its_way_is_thrown_away_while_new_ones_work(
    behind: Database, proxy: Proxy
) -> None:
    """A NAT that has forgotten the connection of a step: its statement is nowhere, and others are answered."""
    session = StepSession(behind.engine)
    await session.execute(text("SELECT 1"))
    proxy.swallow()
    waiting = asyncio.create_task(session.execute(text("SELECT 2")))
    await until(lambda: bool(proxy.dropped), "the statement is lost")
    proxy.pass_on()
    with capture_logs() as lines:
        error = await end_of(waiting)
    assert error is not None
    assert is_connection_error(error)
    assert [one["because"] for one in lines if one["event"] == SILENT] == ["a new connection works"]
    async with asyncio.timeout(PATIENCE):
        await session.discard()
    async with behind.transaction() as other:
        assert await other.scalar(text("SELECT 3")) == 3


async def test_what_takes_long_is_let_alone(behind: Database, proxy: Proxy) -> None:
    """A statement of an author's that works, one that waits for a lock, and a transaction that says nothing for a while."""
    with capture_logs() as lines:
        async with behind.transaction() as working, behind.transaction() as idle, behind.transaction() as waiting:
            await idle.execute(text("SELECT pg_advisory_xact_lock(1)"))
            locks = asyncio.create_task(waiting.execute(text("SELECT pg_advisory_xact_lock(1)")))
            await working.execute(text("SELECT pg_sleep(3)"))
            await idle.rollback()
            await locks
            assert await working.scalar(text("SELECT 1")) == 1
    assert lines == []
    assert proxy.accepted > 4, "the server was asked about them"


async def test_closing_does_not_wait_for_a_silent_server(behind: Database, proxy: Proxy) -> None:
    """The connections of both pools are open, and one is in use."""
    await behind.pool.fetchval("SELECT 1")
    async with behind.transaction() as session:
        await session.execute(text("SELECT 1"))
    proxy.swallow()
    waiting = asyncio.create_task(behind.pool.fetchval("SELECT 2"))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await behind.close()
    assert await end_of(waiting) is not None
