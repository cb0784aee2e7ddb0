"""The session that a form, run predicate or authorization callback receives, in the transaction of the request that calls it.

It has state of its own on the request's connection. A function that goes on after its time has a session that has ended; it
never meets the one with which the request, or the step that starts processes, goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.db.session import is_database_loss
from orchestrator.db.step_guard import OPTION, Refusals, SessionGuard
from orchestrator.db.step_session import GuardedSession
from orchestrator.engine.arguments import is_plain
from orchestrator.errors import CommitNotAllowedError, DefinitionError
from orchestrator.text import format_error

logger = structlog.get_logger(__name__)

_REFUSED = "{who} may not {{what}}: the transaction is that of the request that has called it (savepoints are allowed)"
_ENDED = "{who} has ended, and its session with it: nothing is read or written through it any more"


@asynccontextmanager
async def lend(request: AsyncSession, who: str) -> AsyncIterator[HookSession]:
    """Lend the transaction of a request to a function of an author's for as long as the body runs.

    Args:
        who: names the function in error texts.

    Raises:
        DefinitionError: the function has tried to end the transaction, or has added what the database refuses.
    """
    session = HookSession(request, who)
    try:
        yield session
        try:
            await session.finish()
        except SQLAlchemyError as error:
            if is_database_loss(error):
                raise
            raise DefinitionError(f"what {who} has added cannot be stored: {format_error(error)}") from error
    except CommitNotAllowedError as error:
        raise DefinitionError(str(error)) from error
    finally:
        await session.end()


def face(session: AsyncSession, function: Callable[..., object]) -> AsyncSession | Session:
    """Return a session as the function uses it: the synchronous one if the function runs in a thread."""
    return session.sync_session if is_plain(function) else session


class _HookSession(GuardedSession):
    """The synchronous half."""

    request: Session
    guard_before: SessionGuard | None = None
    """The guard of the step that has called the function."""

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        """Return the request's connection, whose transaction is joined."""
        self.guard.require_step()
        connection = Session.connection(self.request)
        if self.guard.connection is None:
            self.guard.connection = connection
            self.guard_before = connection.get_execution_options().get(OPTION)
            connection.execution_options(**{OPTION: self.guard})
        return connection


class NoSession(AsyncSession):
    """Stands for the session of a request where there is no database.

    Args:
        error: is raised when it is used.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(sync_session_class=_NoSession)
        self.sync_session.info["error"] = error


class _NoSession(Session):
    def get_bind(self, *_: Any, **__: Any) -> Connection:
        raise self.info["error"]


class HookSession(AsyncSession):
    """The session of one call of one function. It joins the request's transaction when the function first uses it.

    Args:
        request: the session of the request.
        who: names the function in error texts.
    """

    sync_session_class = _HookSession

    def __init__(self, request: AsyncSession, who: str) -> None:
        super().__init__(
            expire_on_commit=False, join_transaction_mode="rollback_only", sync_session_class=self.sync_session_class
        )
        self._guarded = cast("_HookSession", self.sync_session)
        self._guarded.guard = SessionGuard(Refusals(_REFUSED.format(who=who), _ENDED.format(who=who)))
        self._guarded.request = request.sync_session
        # What the engine keeps for the transaction is known by either session.
        self._guarded.info = request.info

    async def finish(self) -> None:
        """Send what is pending, when the function has returned.

        Raises:
            CommitNotAllowedError: it has tried to end the transaction, and swallowed the refusal.
        """
        if self._guarded.guard.violation is not None:
            raise self._guarded.guard.violation
        if self.new or self.dirty or self.deleted:
            await self.flush()

    async def end(self) -> None:
        """Refuse whatever comes from now on; the request goes on with its connection."""
        guard = self._guarded.guard
        guard.end()
        if guard.connection is not None:
            guard.connection.execution_options(**{OPTION: self._guarded.guard_before})
        if guard.threads_left:
            return  # one may be inside the session at this very moment
        try:
            await self.close()
        except Exception as error:
            # The savepoint that it has left open is lost with its connection.
            logger.warning("the session of a function was in use when it ended", reason=str(error))
