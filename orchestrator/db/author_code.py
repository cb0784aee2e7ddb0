"""Requests that call user code: forms, run predicates, authorization callbacks.

Each is one transaction on a connection that the engine's own work never waits for. A few run at once, shared fairly among
workflows, so that code that hangs holds up the requests of its own workflow and nothing else. Code that loses the connection
is not taken for a server that is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from orchestrator.errors import ConnectionLostError, WorkflowBusyError
from orchestrator.fair_turns import FairTurns
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

T = TypeVar("T")

WITNESS_TIMEOUT: Final = 5.0
"""Seconds that the server may take to answer on the connection that has seen the second try."""

ANSWER_HOLDS: Final = 1.0
"""Seconds for which a server that has accepted a connection counts as there: dozens of requests may find no turn in a second."""


class AuthorCode:
    """Runs the requests of one program that call user code.

    Args:
        sessions: of connections for this alone.
        connections: how many there are.
        connect: opens a connection for the engine's own statements.
        is_connection_error: recognizes the errors of a connection that was lost, among others.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        connections: int,
        *,
        connect: Callable[[], Awaitable[Any]],
        is_connection_error: Callable[[BaseException], bool],
    ) -> None:
        self._sessions = sessions
        self._turns = FairTurns(connections)
        self._connect = connect
        self._is_connection_error = is_connection_error
        self._answered_at: float | None = None

    async def run(
        self, workflow: str, act: Callable[[AsyncSession], Awaitable[T]], *, patience: float | None = None
    ) -> T:
        """Run a request in a transaction that commits when it returns and rolls back when it raises.

        A request that loses its connection is run once more, because a server may have been restarted.

        Args:
            workflow: whose code it calls; requests of one workflow never take all turns.
            patience: seconds for which to wait for a turn; default until there is one.

        Raises:
            WorkflowBusyError: there was no turn, and the server answers.
            ConnectionLostError: the connection was lost twice, the second time while another one stayed.
        """
        async with self._turn(workflow, patience):
            try:
                return await self._try(act)
            except _LostError as lost:
                reason = format_message(lost.error)
                logger.warning("a request has lost its connection; once more", workflow=workflow, error=reason)
            # If the server is away, this says so.
            witness = await self._connect()
            try:
                return await self._try(act)
            except _LostError as lost:
                if not await _answers(witness):
                    raise lost.error from None
                raise self._refuse(workflow, lost.error) from lost.error
            finally:
                witness.terminate()

    @asynccontextmanager
    async def _turn(self, workflow: str, patience: float | None) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._turns.turn(workflow, patience))
            except WorkflowBusyError:
                await self._require_server()
                raise
            yield

    async def _require_server(self) -> None:
        """Raise a connection error if the server is away: those that have the turns may wait for it, and none is refused."""
        loop = asyncio.get_running_loop()
        if self._answered_at is None or loop.time() - self._answered_at > ANSWER_HOLDS:
            (await self._connect()).terminate()
            self._answered_at = loop.time()

    async def _try(self, act: Callable[[AsyncSession], Awaitable[T]]) -> T:
        is_lost = False
        try:
            async with self._sessions.begin() as session:
                raw = await (await session.connection()).get_raw_connection()
                try:
                    return await act(session)
                finally:
                    is_lost = raw.driver_connection is None or raw.driver_connection.is_closed()
        except Exception as error:
            # A function may have swallowed the loss; then SQLAlchemy wants a rollback first.
            if is_lost and (self._is_connection_error(error) or isinstance(error, PendingRollbackError)):
                raise _LostError(error) from error
            raise

    def _refuse(self, workflow: str, error: Exception) -> ConnectionLostError:
        logger.error(
            "user code has lost its database connection twice; not tried again", workflow=workflow, exc_info=error
        )
        return ConnectionLostError(
            f"the form, predicate or authorization callback of {workflow!r} has lost its database connection twice, while the"
            f" engine's own connections work: {format_message(error)}; the log has the traceback"
        )


class _LostError(Exception):
    """The connection of a request was lost."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


async def _answers(connection: Any) -> bool:
    try:
        async with asyncio.timeout(WITNESS_TIMEOUT):
            await connection.fetchval("SELECT 1")
    except Exception:
        return False
    return True
