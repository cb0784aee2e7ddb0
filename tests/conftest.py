"""Fixtures for everything that needs servers: a database and a virtual host of its own for each test that asks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database
from tests.servers import NoServersError, Servers, drop_database, drop_vhost, make_vhost

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = f"orchestrator_template_{os.getpid()}"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Shells start jobs in the background with the interrupt ignored, and programs that the tests start inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers() -> Servers:
    """The servers that ``scripts/test`` has started, or that somebody has named."""
    try:
        return Servers.from_environment()
    except NoServersError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> Iterator[str]:
    """A migrated database from which each test's own is copied, in milliseconds."""

    async def make() -> None:
        connection = await asyncpg.connect(servers.dsn())
        try:
            await connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
        finally:
            await connection.close()
        database = Database(servers.database_url(TEMPLATE), pool_size=2, connect_timeout=5, application_name="tests")
        await upgrade(database.engine, Path("there-is-none"))
        await database.close()

    async def drop() -> None:
        connection = await asyncpg.connect(servers.dsn())
        try:
            await drop_database(connection, TEMPLATE)
        finally:
            await connection.close()

    asyncio.run(make())
    yield TEMPLATE
    asyncio.run(drop())


@pytest.fixture
async def database_url(servers: Servers, template_database: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database."""
    name = f"orchestrator_test_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(servers.dsn())
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
        yield servers.database_url(name)
        await drop_database(connection, name)
    finally:
        await connection.close()


@pytest.fixture
async def amqp_url(servers: Servers) -> AsyncIterator[str]:
    """The URL of a fresh virtual host."""
    name = f"test-{uuid4().hex[:12]}"
    await asyncio.to_thread(make_vhost, servers, name)
    yield servers.amqp_url(name)
    await asyncio.to_thread(drop_vhost, servers, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database."""
    opened = Database(database_url, pool_size=5, connect_timeout=5, application_name="tests")
    await opened.open()
    yield opened
    await opened.close()
