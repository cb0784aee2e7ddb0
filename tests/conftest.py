"""Fixtures for everything that needs servers: a database and a virtual host of its own for each test that asks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database
from tests.collector import collector_as_before
from tests.databases import Databases
from tests.servers import NoServersError, Servers, drop_vhost, make_vhost

LONGEST = (
    "test_unhandled_letters.py",
    "test_chaos_for_a_minute.py",
    "test_chaos_servers.py",
    "test_silent_connections.py",
    "test_services_script.py",
    "test_benchmark_programs.py",
    "test_lost_attempts.py",
    "test_api_bad_input.py",
    "test_chaos_programs.py",
    "test_changed_models.py",
    "test_documented_projects.py",
    "test_command_line.py",
    "test_events_socket.py",
    "test_ui_pages.py",
    "test_hanging_threads.py",
    "test_ui_story.py",
    "test_pause_and_abort.py",
    "test_examples.py",
    "test_blocked_loops.py",
    "test_child_processes.py",
    "test_api_schemathesis.py",
    "test_lock_crashes.py",
    "test_random_lives.py",
    "test_second_run.py",
    "test_triggers.py",
    "test_typing.py",
)
"""Files, or tests in them, that take longest. Workers take them in this order, so that none is left with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without Python's garbage collector: nothing imported is garbage, and to look for it took a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Keep nothing that is compiled from here on: tests change modules faster than a file's time tells (ADR 0082).

    Python's garbage collector looks less often: each time it walks over half a million imported objects as well, which took
    a tenth of the time of the unit tests.
    """
    gc.set_threshold(10_000, 10, 10)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Shells start jobs in the background with the interrupt ignored, and programs that the tests start inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Have errors logged in the tests' own process as plain text: in colours, with all variables, one took seconds of CPU."""
    *others, _ = structlog.get_config()["processors"]
    structlog.configure(processors=[*others, ConsoleRenderer(colors=False, exception_formatter=plain_traceback)])


@pytest.fixture(scope="session", autouse=True)
def as_wide_as_a_file() -> None:
    """Remove the width of the terminal in which the tests run, on which depends what programs print."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_collector() -> Iterator[None]:
    """Undo what programs and commands that run in the tests' own process set in Python's garbage collector."""
    with collector_as_before():
        yield


@pytest.fixture(scope="session")
def servers() -> Servers:
    """Provide the servers that ``scripts/test`` has started, or that the environment names."""
    try:
        return Servers.from_environment()
    except NoServersError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def databases(servers: Servers) -> Iterator[Databases]:
    """Provide the databases of this session."""
    made = Databases(servers)
    yield made
    made.close()


def migrate(url: str) -> None:
    """Apply the engine's own migrations."""

    async def apply() -> None:
        database = Database(url, pool_size=2, connect_timeout=30, application_name="tests")
        await upgrade(database.engine, Path("there-is-none"))
        await database.close()

    asyncio.run(apply())


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """Provide the URL of a migrated database in which there is nothing."""
    url = databases.take(databases.template("engine", migrate))
    yield url
    databases.give_back(url)


@pytest.fixture
async def amqp_url(servers: Servers) -> AsyncIterator[str]:
    """Provide the URL of a fresh virtual host."""
    name = f"test-{uuid4().hex[:12]}"
    await asyncio.to_thread(make_vhost, servers, name)
    yield servers.amqp_url(name)
    await asyncio.to_thread(drop_vhost, servers, name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Provide an open database."""
    opened = Database(database_url, pool_size=5, connect_timeout=30, application_name="tests")
    await opened.open()
    yield opened
    await opened.close()
