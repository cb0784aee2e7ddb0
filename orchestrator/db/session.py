"""Connections: one SQLAlchemy engine for use cases and steps, and a small asyncpg pool for the engine's own statements.

The two are apart so that steps which use up their connections cannot starve claims, commits and heartbeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from orchestrator.db import pooler
from orchestrator.db.author_code import AuthorCode
from orchestrator.db.bounds import bound_authors
from orchestrator.db.connection import (
    OWN_SESSION,
    POOL_SESSION,
    SESSION,
    SILENT_AFTER,
    Hosts,
    explain_refusal,
    read_url,
)
from orchestrator.db.failover import FailoverWatch
from orchestrator.db.shared_pool import SharedPool, make_engine
from orchestrator.db.silence import SilenceWatch
from orchestrator.db.small_pool import SmallPool
from orchestrator.diagnostics import comes_from, is_own
from orchestrator.engine.state import write_json
from orchestrator.errors import ConfigurationError
from orchestrator.hosts import hide_password, host_of, split_hosts
from orchestrator.settings import Settings
from orchestrator.shares import Shares

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Driver = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    """A plain asyncpg connection, whichever of the two pools it comes from."""
    DriverPool = asyncpg.Pool[asyncpg.Record]
else:  # asyncpg's classes are generic in its stubs only
    Driver, DriverPool = asyncpg.Connection, asyncpg.Pool

LAST_WORDS = 0.1
"""Seconds for closing the connections to a server that is known to be silent."""

ENGINE_CONNECTIONS = 8
"""Of the small pool. A durable commit alone scales to about eight connections; more only queue in the server."""

SAVED = "orchestrator.saved"
"""The key in ``session.info`` of the ids of the subscriptions that were saved with the session."""

CHANGED = "orchestrator.changed"
"""The key in ``session.info`` of those whose blocks or status have changed; each with whether it was terminated."""

PROCESS_ID = "orchestrator.process_id"
PASSES_LOCKS = "orchestrator.passes_locks"
"""Under this key a step's session carries the id of its process, in ``session.info``: whatever it saves is saved by it."""


class Database:
    """All connections of one program. Opened and closed by the program's entry point.

    Args:
        url: ``postgresql+asyncpg://…``, with one host or several.
        pool_size: connections for use cases and steps.
        author_connections: further ones for requests that call user code; default as many as for use cases.
        engine_connections: connections for the engine's own statements.
        connect_timeout: seconds that a server may take to answer.
        application_name: what an operator sees in ``pg_stat_activity``.
        silent_after: seconds without an answer after which the server counts as gone.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int,
        author_connections: int = 0,
        engine_connections: int = ENGINE_CONNECTIONS,
        connect_timeout: float,
        application_name: str,
        silent_after: float = SILENT_AFTER,
    ) -> None:
        self._url = url
        try:
            urls = [(host_of(one), make_url(one)) for one in split_hosts(url)]
            self._engine = make_engine(urls[0][1], pool_size, self._connect_for_sessions)
            for_authors = author_connections or pool_size
            self._author_engine = make_engine(urls[0][1], for_authors, self._connect_for_authors)
            self._hosts = Hosts([(place, read_url(one)) for place, one in urls], connect_timeout, silent_after)
        except (ArgumentError, ValueError) as error:
            raise ConfigurationError(f"ORCHESTRATOR_DATABASE_URL cannot be used: {error}") from error
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self.author_code = AuthorCode(
            async_sessionmaker(self._author_engine, expire_on_commit=False),
            for_authors,
            connect=self.connect,
            is_connection_error=is_connection_error,
        )
        self._connect_timeout = connect_timeout
        self._application_name = application_name
        self._silent_after = silent_after
        self._engine_connections = engine_connections
        self._watch = FailoverWatch(self._hosts, application_name, connect_timeout)
        self._silence = SilenceWatch(self._hosts, application_name, silent_after)
        self._pool: DriverPool | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        application_name: str,
        pool_size: int | None = None,
        engine_connections: int = ENGINE_CONNECTIONS,
        author_connections: int = 0,
    ) -> Database:
        """Build the connections that the settings ask for."""
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_pool_size if pool_size is None else pool_size,
            author_connections=author_connections,
            engine_connections=engine_connections,
            connect_timeout=settings.connect_timeout,
            application_name=application_name,
            silent_after=settings.presumed_dead_after,
        )

    @property
    def engine(self) -> AsyncEngine:
        """The SQLAlchemy engine."""
        return self._engine

    @property
    def pool(self) -> DriverPool:
        """The small pool; only after :meth:`open`."""
        assert self._pool is not None, "Database.open() was not awaited"  # noqa: S101 - a programming error, not a user's
        return self._pool

    def share(self, queues: Iterable[str]) -> None:
        """Share the connections for use cases and steps among step queues; see :class:`~orchestrator.shares.Shares`."""
        pool = self._engine.pool
        assert isinstance(pool, SharedPool)  # noqa: S101 - tells the type checker what was built above
        pool.shares = Shares(pool.size(), queues)

    @property
    def connections(self) -> Shares:
        """The connections for use cases and steps as they are shared; only after :meth:`share`."""
        pool = self._engine.pool
        assert isinstance(pool, SharedPool), "the pool that was built above"  # noqa: S101 - tells the type checker
        assert pool.shares is not None, "Database.share() was not called"  # noqa: S101 - a programming error, not a user's
        return pool.shares

    async def check(self) -> None:
        """Connect once, and watch from now on for connections that fall silent.

        Raises:
            ServerUnavailableError: PostgreSQL does not answer or refuses us; one line, with the server's words.
            ConfigurationError: a connection pooler is between that does not give each client a session of its own.
        """
        try:
            async with asyncio.timeout(self._hosts.patience):
                connection = await self.connect()
                self._silence.is_pooled = await pooler.is_between(connection)
                await connection.close()
            if self._silence.is_pooled:
                await pooler.require_sessions(self.connect, self._connect_timeout)
        except CONNECTION_ERRORS as error:
            raise explain_refusal(self._url, error) from error
        self._silence.start()

    async def connect(self, application_name: str | None = None) -> Driver:
        """Open a connection for the engine's own statements that belongs to neither pool; the caller closes it.

        It may be opened and used on another event loop than the pools'.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: see :meth:`Hosts.connect`.
        """
        connection: Driver = await self._hosts.connect(application_name or self._application_name, OWN_SESSION)
        return connection

    async def open(self) -> None:
        """Open the small pool.

        Raises:
            ServerUnavailableError: as :meth:`check`.
        """
        await self.check()
        self._pool = SmallPool(self._engine_connections, connect=self._connect_for_pool, reset=self._expire_read_only)
        await self._pool

    async def watch(self, stopping: asyncio.Event) -> None:
        """Cut connections that hang when another server has taken the primary's place, until ``stopping`` is set.

        For programs that run for long, beside everything else.
        """
        await self._watch.run(stopping)

    @property
    def unanswered_for(self) -> float:
        """For how many seconds the server has not answered the one who watches; 0 while it answers."""
        return self._watch.unanswered_for

    async def require_tables(self) -> None:
        """Check that the migrations have been run.

        Raises:
            ConfigurationError: they have not.
        """
        if await self.pool.fetchval("SELECT to_regclass('processes') IS NULL"):
            raise ConfigurationError(
                f"the database {hide_password(self._url)} has no tables of ours: run 'orchestrator db upgrade' first"
            )

    async def answers(self, seconds: float) -> bool:
        """Return whether the server answers a connection of the small pool within this time."""
        try:
            async with asyncio.timeout(seconds):
                return bool(await self.pool.fetchval("SELECT true"))
        except CONNECTION_ERRORS:
            return False

    def abandon(self) -> None:
        """Close every connection at once, so that nothing waits for the server any more."""
        self._silence.terminate_all()

    async def close(self) -> None:
        """Close everything, without waiting for long for a server that does not answer."""
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(LAST_WORDS if self.unanswered_for else self._connect_timeout):
                if pool is not None:
                    await pool.close()
                await self._engine.dispose()
                await self._author_engine.dispose()
        except TimeoutError:
            if pool is not None:
                pool.terminate()
        await self._silence.stop()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session in a transaction that commits when the block ends and rolls back when it raises.

        For entry points only: use cases never commit.
        """
        async with self._sessions.begin() as session:
            yield session

    async def _connect_for_sessions(self, *_: Any, **__: Any) -> Driver:
        # Authors' statements may take longer than the engine's own.
        return await self._connect_session(SESSION)

    async def _connect_for_authors(self, *_: Any, **__: Any) -> Driver:
        return await self._connect_session({**SESSION, **bound_authors(self._silent_after)})

    async def _connect_session(self, session: Mapping[str, str]) -> Driver:
        connection: Driver = await self._hosts.connect(self._application_name, session)
        self._watch.add(connection)
        self._silence.add(connection, is_own=False)
        return connection

    async def _connect_for_pool(self, *_: Any, **__: Any) -> Any:
        connection = await self._hosts.connect(self._application_name, POOL_SESSION)
        self._watch.add(connection)
        self._silence.add(connection, is_own=True)
        return connection

    async def _expire_read_only(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Replace the pool's connections when the server has become read-only: another one may have taken its place."""
        if getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on":
            await self.pool.expire_connections()


def to_jsonb(value: object) -> str:
    """Return JSON for a ``jsonb`` parameter of a statement."""
    return write_json(value)


async def read_time(session: AsyncSession) -> datetime:
    """Return the time by the database's clock: the one that deadlines are compared with."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


async def get_driver(session: AsyncSession) -> Driver:
    """Return the asyncpg connection under a session, inside the session's transaction.

    SQLAlchemy begins its transaction with the first statement that it sends itself, so one must have been sent.
    """
    raw = await (await get_connection(session)).get_raw_connection()
    return cast("Driver", raw.driver_connection)


async def get_connection(session: AsyncSession) -> AsyncConnection:
    """Return the connection under a session, for the engine's own statements.

    A step's session records when its author asks for the connection; this function asks without being recorded.
    """
    connection = await session.run_sync(Session.connection)
    return AsyncConnection(AsyncEngine(connection.engine), connection)


CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "another operation is in progress": the one before died with the server
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCachedStatementError,  # a table was altered meanwhile: from now on the client prepares its statements anew
)
"""The database is away, restarting, full, being altered, or refuses us: back off and try again; nothing is acknowledged."""


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error means that the database is away, rather than that a statement was wrong."""
    if isinstance(error, DBAPIError):
        original = error.orig
        cause = original.__cause__ if original is not None else None
        return error.connection_invalidated or isinstance(error, InterfaceError) or isinstance(cause, CONNECTION_ERRORS)
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        # A file, a child process or a socket of another library raises the same class.
        return is_own(error) or comes_from(error, "orchestrator.db", _CLIENTS)
    return isinstance(error, CONNECTION_ERRORS)


_CLIENTS = {"asyncpg", "sqlalchemy"}


def is_lost_race(error: BaseException) -> bool:
    """Return whether an error means that a transaction was ended in favour of another one: the same once more may succeed."""
    found = error.orig if isinstance(error, DBAPIError) else error
    return getattr(found, "sqlstate", None) in {_SERIALIZATION_FAILURE, _DEADLOCK}


def explain_transient(error: BaseException) -> str | None:
    """Return why what failed is to be tried again; ``None`` if it would fail again."""
    if is_connection_error(error):
        return "a server is away"
    return "another transaction was in the way" if is_lost_race(error) else None


def is_database_loss(error: BaseException) -> bool:
    """Return whether an error that came out of an author's step means that the step's own database connection was lost.

    User code may lose connections to other systems as well, and other databases by the same libraries; only what was
    raised by a connection of ours counts, which our engine has marked.
    """
    if not is_own(error):
        return False
    if isinstance(error, DBAPIError):
        cause = None if error.orig is None else error.orig.__cause__
        # A statement that took longer than its author, or the server's administrator, allows: the connection lives.
        return is_connection_error(error) and not isinstance(cause, asyncpg.QueryCanceledError)
    return isinstance(error, CONNECTION_ERRORS)


def is_not_migrated(error: BaseException) -> bool:
    """Return whether an error means that the database lacks our tables, or has those of an older version."""
    found = error.orig if isinstance(error, DBAPIError) else error
    return getattr(found, "sqlstate", None) in {_MISSING_TABLE, _MISSING_COLUMN}


_MISSING_TABLE, _MISSING_COLUMN = "42P01", "42703"
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"


def is_database_outage(error: BaseException) -> bool:
    """Return whether an error means that PostgreSQL is down, and not a file or another server of a user's code."""
    return is_connection_error(error) and (not isinstance(error, OSError) or is_own(error))
