"""The session that a step receives: a full SQLAlchemy session that cannot end its transaction, and ends with its step.

The transaction belongs to the engine, which commits the author's writes together with the step's log row. Three guards:
the session's own methods refuse; SQL text that would end the transaction is refused before it is sent; and a mark set
inside the transaction is checked in the engine's last statement, so that whatever slips through is found and not committed.

A step may leave a task that it has not awaited, or go on after its cancellation. Once the step has ended, the session refuses
every task but the engine's own, and takes no connection.

What a step changes in the connection itself (settings, locks, temporary tables) must not reach the next step on it: a
connection that was sent such a statement is closed instead of given back to the pool. So is one that the step has asked for,
because it may have kept the driver's connection. What escapes: a function or procedure in the database that changes a setting
for its session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import greenlet_spawn

from orchestrator.db.bounds import NO_LIMIT
from orchestrator.db.rollback_hooks import forget_undo
from orchestrator.db.session import PASSES_LOCKS, PROCESS_ID, Driver, get_driver
from orchestrator.db.step_guard import NOT_REUSABLE, OPTION, SessionGuard
from orchestrator.diagnostics import mark_own
from orchestrator.errors import ConcurrentSessionError

logger = structlog.get_logger(__name__)

MARK_SETTING = "orchestrator.step"
"""A transaction-local setting: gone as soon as the transaction has ended, however it was ended."""

_ONE_TASK = (
    "a session is for one task at a time (await one use of it before the next, instead of gather or create_task)"
)
_ILLEGAL_STATE = "isce"
"""SQLAlchemy's code for errors of a session that several tasks use at once."""


_BEGIN = f"SELECT set_config($1, $2, true), {NO_LIMIT}"
"""The first statement of a step's transaction. A step may wait in it for as long as it wants, for a device say."""


class GuardedSession(Session):
    """The synchronous half of a step's session."""

    guard: SessionGuard

    def commit(self) -> None:
        self.guard.refuse("commit")
        super().commit()

    def rollback(self) -> None:
        self.guard.refuse("roll back")
        super().rollback()

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            self.guard.refuse("begin a transaction")
        self.guard.require_step()
        return super().begin(nested)

    def close(self) -> None:
        self.guard.refuse("close its session")
        super().close()

    def reset(self) -> None:
        self.guard.refuse("reset its session")
        super().reset()

    def invalidate(self) -> None:
        self.guard.refuse("invalidate its session")
        super().invalidate()

    def add(self, instance: object, *, _warn: bool = True) -> None:
        self.guard.require_step()
        super().add(instance, _warn=_warn)

    def connection(self, *arguments: Any, **options: Any) -> Connection:
        """Return the connection, for authors; the engine's own modules use :func:`orchestrator.db.session.get_connection`."""
        connection = super().connection(*arguments, **options)
        connection.info[NOT_REUSABLE] = True
        return connection

    def get_bind(self, *arguments: Any, **options: Any) -> Any:
        """Return the engine; everything that needs the database calls this first."""
        self.guard.require_step()
        return super().get_bind(*arguments, **options)

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        # A flush that fails rolls back by itself. That must not be refused: the refusal would hide the real error.
        self.guard.flushing = True
        try:
            super().flush(objects)
        finally:
            self.guard.flushing = False


class StepSession(AsyncSession):
    """The session of one attempt of one step. It takes a connection only when the step first uses it.

    Args:
        process_id: whose step it is: what is saved through this session is saved by that process.
        passes_locks: whether it may save subscriptions that other processes hold.
    """

    sync_session_class = GuardedSession

    def __init__(self, engine: AsyncEngine, process_id: UUID | None = None, *, passes_locks: bool = False) -> None:
        self.guard = SessionGuard()
        super().__init__(
            engine.execution_options(**{OPTION: self.guard}),
            expire_on_commit=False,
            close_resets_only=False,
            sync_session_class=GuardedSession,
        )
        self._guarded = self.sync_session
        assert isinstance(self._guarded, GuardedSession)  # noqa: S101 - tells the type checker what was just built
        self._guarded.guard = self.guard
        event.listen(self._guarded, "after_begin", self._begun)
        if process_id is not None:
            self.info[PROCESS_ID] = process_id
            self.info[PASSES_LOCKS] = passes_locks

    @property
    def used(self) -> bool:
        """Whether the step has sent anything, has pending objects that must be sent, or has tried to end the transaction."""
        return self.in_transaction() or bool(self.new or self.dirty or self.deleted or self.guard.violation)

    async def hand_over(self) -> Driver:
        """Send what is pending, end the step and give the engine the connection.

        Raises:
            CommitNotAllowedError: the step has tried to end the transaction, and swallowed the refusal.
            ConcurrentSessionError: a task that the step has not awaited is sending a statement.
        """
        if self.guard.violation is not None:
            raise self.guard.violation
        await self.flush()
        connection = await get_driver(self)
        if self.guard.violation is not None:
            raise self.guard.violation
        if self.guard.is_sending:
            raise ConcurrentSessionError(
                f"the step has ended while a task of its own still uses its session: {_ONE_TASK}"
            )
        self.guard.end()
        # From now on the transaction commits or is lost as a whole.
        forget_undo(self)
        return connection

    async def mark_is_intact(self) -> bool:
        """Return whether the transaction is still the one that the step began in."""
        intact: bool | None = await (await get_driver(self)).fetchval(
            "SELECT current_setting($1, true) = $2", MARK_SETTING, self.guard.mark
        )
        return bool(intact)

    async def conclude(self) -> None:
        """Commit what was handed over, and release the connection.

        A cancellation on the way must not leave the outcome unknown, so it waits for the answer first.
        """
        await _to_the_end(self._conclude())

    async def discard(self) -> None:
        """Roll back what was not committed and release the connection, even while a task still uses it; never raises."""
        await _to_the_end(self._discard())

    def explained(self, error: Exception) -> Exception:
        """Return the error, with advice when its own text does not say what an author should do."""
        if getattr(error, "code", None) != _ILLEGAL_STATE:
            return error
        explained = ConcurrentSessionError(f"{error}: {_ONE_TASK}")
        explained.__cause__ = error
        return explained

    async def _conclude(self) -> None:
        self.guard.end()
        await self.commit()
        await self.close()

    async def _discard(self) -> None:
        self.guard.end()
        left = self.guard.threads_left
        if left:
            # A plain function goes on after its time. It may be inside the session at this very moment, so only the connection is
            # touched; and it may be given one in this moment, so there is a second look when it has ended.
            await self._sever()
            for bridge in left:
                bridge.when_done(partial(_in_background, self._discard))
            return
        try:
            await self.close()
        except Exception as error:
            # A task that the step did not await is using the session. If it waits for a connection, the guard refuses it then;
            # else its connection is closed under it.
            logger.warning("the session was in use when its step ended", reason=str(error))
            await self._sever()

    async def _sever(self) -> None:
        """Close the connection under whoever uses it."""
        connection = self.guard.connection
        if connection is None or connection.closed:
            return
        try:
            await greenlet_spawn(_close, connection)
        except Exception:
            # The outcome of the attempt must be stored, whatever becomes of its connection.
            logger.exception("the session's connection is lost")

    def _begun(self, _: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:
            self.guard.connection = connection
            connection.exec_driver_sql(_BEGIN, (MARK_SETTING, self.guard.mark))


def _close(connection: Connection) -> None:
    if not connection.invalidated:
        connection.invalidate()
    connection.close()


_background: set[asyncio.Task[None]] = set()


def _in_background(action: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = asyncio.ensure_future(action())
    _background.add(task)
    task.add_done_callback(_background.discard)


async def _to_the_end(action: Coroutine[Any, Any, None]) -> None:
    """Await an action to its end even when cancelled meanwhile, and then be cancelled."""
    task = asyncio.ensure_future(action)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@asynccontextmanager
async def transaction_beside(session: AsyncSession) -> AsyncIterator[AsyncSession]:
    """Open a transaction beside that of a step, on a connection of the same pool; it commits at the end of the block.

    For steps of the engine itself whose work is harmless to repeat, and need not be one with the step's commit.
    """
    engine = session.bind
    assert isinstance(engine, AsyncEngine), "a step's session has an engine"  # noqa: S101 - a programming error
    try:
        async with AsyncSession(engine.execution_options(**{OPTION: None})) as own, own.begin():
            # It is this that begins the transaction, also for what the driver is sent past SQLAlchemy.
            await own.execute(select(1))
            yield own
    except Exception as error:
        # Of our own database, also when it was raised by the driver itself.
        mark_own(error)
        raise
