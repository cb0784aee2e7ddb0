"""The database of a test run: created beside the project's own, migrated once, and emptied between tests."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from orchestrator.db.disposable import (
    MARK,
    Contents,
    count_users,
    create_database,
    drop_database,
    find_mark,
    read_contents,
    restore_contents,
)
from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database, Driver
from orchestrator.errors import ConfigurationError
from orchestrator.hosts import hide_password
from orchestrator.services.plans import ProgramPlans
from orchestrator.settings import Settings
from orchestrator.testing.log_lines import readable_log
from orchestrator.workflows.shipped import load_workflows

T = TypeVar("T")

_NAME = "orchestrator testing"


class WorkflowDatabase:
    """A migrated database in which tests run workflows. Made by :func:`open_database`.

    Args:
        settings: those of the project, with the URL of this database.
    """

    def __init__(self, settings: Settings, name: str, *, is_created: bool) -> None:
        self.settings = _at(settings, name)
        self._project = settings
        self._name = name
        self._is_created = is_created
        # One thread, and so one event loop, for all of it: tests have loops of their own, and their fixtures may run in them.
        self._thread = ThreadPoolExecutor(1, "workflow-database")
        self._runner = asyncio.Runner()
        self._connection: Driver | None = None
        self._contents: Contents | None = None

    def __enter__(self) -> Self:
        try:
            self._call(self._prepare)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call(self._drop)
        finally:
            self._end()

    def reset(self) -> None:
        """Give it the rows again that it had after the migrations, and no others."""
        self._call(self._reset)

    def _end(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _call(self, action: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await action()

        return self._thread.submit(lambda: self._runner.run(run())).result()

    async def _prepare(self) -> None:
        if self._is_created:
            await self._with_server(self._create)
        await self._fill()

    async def _create(self, server: Driver) -> None:
        mark = await find_mark(server, self._name)
        if mark is not None:
            if mark != MARK:
                raise ConfigurationError(
                    f"the database {self._name!r} exists and was not made for tests: they would drop it. Rename it, or drop it"
                    " yourself"
                )
            if await count_users(server, self._name):
                raise ConfigurationError(
                    f"the database {self._name!r} is in use: another test run of this project is under way"
                )
            await drop_database(server, self._name)
        try:
            await create_database(server, self._name)
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                f"the database {self._name!r} cannot be created: {error}. Let the user of ORCHESTRATOR_DATABASE_URL create"
                " databases (ALTER ROLE … CREATEDB), or name one for tests that exists: pytest --workflow-database NAME"
            ) from error

    async def _fill(self) -> None:
        settings = self.settings
        database = Database.of(settings, _NAME, pool_size=2)
        try:
            await database.check()
            await upgrade(database.engine, Path(settings.migrations), settings.default_product_workflows)
            # Otherwise there is a line for each workflow.
            with readable_log(logging.WARNING):
                async with database.transaction() as session:
                    await ProgramPlans.load().register(session, _NAME)
            # Kept open for the whole run: it also says that the database is in use.
            self._connection = await database.connect()
        finally:
            await database.close()
        self._contents = await read_contents(self._connection)

    async def _reset(self) -> None:
        assert self._connection is not None and self._contents is not None, "it was not entered"  # noqa: S101, PT018
        try:
            await restore_contents(self._connection, self._contents)
        except asyncpg.PostgresError:
            if not self._is_created:
                raise
            # A test has changed the schema, or a trigger keeps rows from being deleted.
            await self._disconnect()
            await self._with_server(self._recreate)
            await self._fill()

    async def _recreate(self, server: Driver) -> None:
        await drop_database(server, self._name)
        await create_database(server, self._name)

    async def _drop(self) -> None:
        await self._disconnect()
        if self._is_created:
            await self._with_server(partial(drop_database, name=self._name))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _with_server(self, action: Callable[[Driver], Awaitable[None]]) -> None:
        """Act on a connection to the project's own database, in which nothing is read or written."""
        database = Database.of(self._project, _NAME, pool_size=2)
        try:
            await database.check()
            connection = await database.connect()
            try:
                await action(connection)
            finally:
                await connection.close()
        finally:
            await database.close()


@contextmanager
def open_database(settings: Settings, *, worker: str = "", existing: str | None = None) -> Iterator[WorkflowDatabase]:
    """Provide a database for tests, migrated and with the project's workflows loaded.

    It is created on the server of ``ORCHESTRATOR_DATABASE_URL`` as ``<its database>_test``, and dropped at the end. The
    project's own database is only connected to.

    Args:
        settings: of the project.
        worker: added to the name, so that several workers have one each.
        existing: the name of a database that is there and may be emptied, instead of creating one; it must have "test" in it.

    Raises:
        ServerUnavailableError: PostgreSQL does not answer or refuses the connection.
        ConfigurationError: the database must not be used, or a migration is wrong.
        DefinitionError: a module of ORCHESTRATOR_WORKFLOWS cannot be imported.
    """
    if existing is not None and "test" not in existing.lower():
        raise ConfigurationError(
            f"the database {existing!r} does not say by its name that it is for tests, which would empty it: name one with"
            " 'test' in it"
        )
    # As the command line does: user modules may be imported from the current folder.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    load_workflows(settings.workflows, shipped_schedules=settings.shipped_schedules)
    name = existing or "_".join(filter(None, [_database_of(settings), "test", worker]))
    with WorkflowDatabase(settings, name, is_created=existing is None) as database:
        yield database


def _database_of(settings: Settings) -> str:
    url = settings.database_url.get_secret_value()
    name = unquote(urlsplit(url).path.removeprefix("/"))
    if not name:
        raise ConfigurationError(f"ORCHESTRATOR_DATABASE_URL names no database: {hide_password(url)}")
    return name


def _at(settings: Settings, name: str) -> Settings:
    """Return settings with the URL of another database of the same server."""
    url = urlunsplit(urlsplit(settings.database_url.get_secret_value())._replace(path=f"/{name}"))
    return settings.model_copy(update={"database_url": SecretStr(url)})
