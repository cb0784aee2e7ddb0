"""SQLAlchemy's engine with a pool of our own, whose connections are shared among step queues."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from orchestrator.activity import Activity, current_activity
from orchestrator.db.step_guard import install_guards
from orchestrator.db.thread_session import BridgedPool
from orchestrator.diagnostics import mark_own
from orchestrator.shares import Shares, working_for


class SharedPool(BridgedPool):
    """A pool whose connections may be shared: each belongs to the step queue for which it was taken until it comes back.

    Attributes:
        shares: as many units as there are connections; without it whoever comes first takes what there is.
    """

    shares: Shares | None = None

    def recreate(self) -> SharedPool:
        """Return an empty pool like this one."""
        pool = super().recreate()
        assert isinstance(pool, SharedPool)  # noqa: S101 - tells the type checker what was just built
        pool.shares = self.shares
        return pool

    def _do_get(self) -> ConnectionPoolEntry:
        activity = current_activity()
        if activity is not None:
            activity.begin_wait()
        try:
            record = self._get()
        finally:
            if activity is not None:
                activity.end_wait()
        if activity is not None:
            activity.connections += 1
            self._takers[record] = activity
        return record

    def _get(self) -> ConnectionPoolEntry:
        shares = self.shares
        if shares is None:
            return super()._do_get()
        queue = working_for.get()
        await_only(shares.acquire(queue))
        try:
            record = super()._do_get()
        except BaseException:
            shares.release(queue)
            raise
        self._holders[record] = (shares, queue)
        return record

    def _put_back(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._put_back(record)
        finally:
            if (taker := self._takers.pop(record, None)) is not None:
                taker.connections -= 1
            if (holder := self._holders.pop(record, None)) is not None:
                shares, queue = holder
                shares.release(queue)

    @property
    def _holders(self) -> dict[ConnectionPoolEntry, tuple[Shares, str | None]]:
        found: dict[ConnectionPoolEntry, tuple[Shares, str | None]] = self.__dict__.setdefault("_held_by", {})
        return found

    @property
    def _takers(self) -> dict[ConnectionPoolEntry, Activity]:
        found: dict[ConnectionPoolEntry, Activity] = self.__dict__.setdefault("_taken_by", {})
        return found


def make_engine(url: URL, size: int, connect: Callable[..., Awaitable[Any]]) -> AsyncEngine:
    """Make an engine for use cases, steps or user code, with so many connections, which ``connect`` opens."""
    engine = create_async_engine(
        url.set(query={}),
        poolclass=SharedPool,
        pool_size=size,
        max_overflow=0,
        # A step waits for its first connection as long as others have all of them: each of these has a timeout.
        pool_timeout=None,
        pool_pre_ping=True,
        # An error's text goes into logs, and what a statement carries may be a secret.
        hide_parameters=True,
        connect_args={"async_creator_fn": connect},
    )
    engine.dialect.do_ping = _ping  # type: ignore[assignment, method-assign]
    event.listen(engine.sync_engine, "handle_error", _mark)
    install_guards(engine)
    return engine


def _ping(connection: Any) -> bool:
    """Return whether the server answers, in one round trip instead of three.

    SQLAlchemy asks in a transaction, for connection poolers that lend a server for each; the engine refuses these.
    """
    connection.autocommit = True
    try:
        connection.ping()
    finally:
        connection.autocommit = False
    return True


def _mark(context: ExceptionContext) -> None:
    if isinstance(getattr(context.original_exception, "__cause__", None), asyncpg.ReadOnlySQLTransactionError):
        # The server was a primary when the connection was opened. SQLAlchemy then replaces the connections that are open.
        context.is_disconnect = True
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None:
            mark_own(error)
