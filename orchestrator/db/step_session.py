"""The session that a step receives: a full SQLAlchemy session that cannot end its transaction.

The transaction belongs to the engine, which commits the author's writes together with the step's log row. Three guards:
the session's own methods refuse; SQL text that would end the transaction is refused before it is sent; and a mark set
inside the transaction is checked in the engine's last statement, so that whatever slips through is found and not committed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from orchestrator.db.savepoints import forget_savepoints, without_comments
from orchestrator.db.session import PASSES_LOCKS, PROCESS_ID, Driver, driver
from orchestrator.errors import CommitNotAllowedError

MARK_SETTING = "orchestrator.step"
"""A transaction-local setting: gone as soon as the transaction has ended, however it was ended."""

_ENDS_TRANSACTION = re.compile(
    r"(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)
_REFUSED = (
    "a step may not {what}: the engine commits the step's writes together with its log row (savepoints are allowed)"
)
_OPTION = "orchestrator_guard"


class Guard:
    """Whether the transaction on a connection belongs to a step at the moment."""

    def __init__(self) -> None:
        self.active = True
        self.flushing = False
        self.mark = uuid4().hex
        self.violation: CommitNotAllowedError | None = None

    def refuse(self, what: str) -> None:
        """Raise if the step is still running; remember it, so that a step which swallows the error fails all the same."""
        if self.active:
            self.violation = CommitNotAllowedError(_REFUSED.format(what=what))
            raise self.violation


class GuardedSession(Session):
    """The synchronous half of a step's session."""

    guard: Guard

    def commit(self) -> None:
        self.guard.refuse("commit")
        super().commit()

    def rollback(self) -> None:
        self.guard.refuse("roll back")
        super().rollback()

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            self.guard.refuse("begin a transaction")
        return super().begin(nested)

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        # A flush that fails rolls back by itself; that is not the step's doing and must not hide the real error.
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
        self.guard = Guard()
        super().__init__(
            engine.execution_options(**{_OPTION: self.guard}), expire_on_commit=False, sync_session_class=GuardedSession
        )
        self._guarded = self.sync_session
        assert isinstance(self._guarded, GuardedSession)  # noqa: S101 - tells the type checker what was just built
        self._guarded.guard = self.guard
        event.listen(self._guarded, "after_begin", self._mark)
        if process_id is not None:
            self.info[PROCESS_ID] = process_id
            self.info[PASSES_LOCKS] = passes_locks

    async def close(self) -> None:
        """Refused in a step: the engine closes it."""
        self.guard.refuse("close its session")
        await super().close()

    @property
    def used(self) -> bool:
        """Whether the step has sent anything, or has pending objects that must be sent."""
        return self.in_transaction() or bool(self.new or self.dirty or self.deleted)

    async def hand_over(self) -> Driver:
        """Send what is pending and give the engine the connection; from here on the step is out.

        Raises:
            CommitNotAllowedError: the step has tried to end the transaction, and swallowed the refusal.
        """
        if self.guard.violation is not None:
            raise self.guard.violation
        await self.flush()
        connection = await driver(self)
        self.guard.active = False
        # The engine commits by the driver: what SQLAlchemy rolls back afterwards is nothing.
        forget_savepoints(self)
        return connection

    async def mark_is_intact(self) -> bool:
        """Whether the transaction is still the one that the step began in."""
        intact: bool | None = await (await driver(self)).fetchval(
            "SELECT current_setting($1, true) = $2", MARK_SETTING, self.guard.mark
        )
        return bool(intact)

    async def discard(self) -> None:
        """Roll back whatever the step did and let the connection go."""
        self.guard.active = False
        await super().close()

    def _mark(self, _: Session, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:
            connection.exec_driver_sql("SELECT set_config($1, $2, true)", (MARK_SETTING, self.guard.mark))


def install_guards(engine: AsyncEngine) -> None:
    """Make an engine refuse, on connections of step sessions, whatever would end the transaction."""
    sync = engine.sync_engine
    event.listen(sync, "before_cursor_execute", _refuse_sql)
    event.listen(sync, "commit", _refuse_commit)
    event.listen(sync, "rollback", _refuse_rollback)


def _guard(connection: Connection) -> Guard | None:
    guard = connection.get_execution_options().get(_OPTION)
    return guard if isinstance(guard, Guard) else None


def _refuse_sql(
    connection: Connection,
    cursor: DBAPICursor,  # noqa: ARG001 - the names of SQLAlchemy's event
    statement: str,
    parameters: object,  # noqa: ARG001
    context: ExecutionContext | None,  # noqa: ARG001
    executemany: bool,  # noqa: ARG001
) -> None:
    guard = _guard(connection)
    if guard is not None and guard.active:
        words = without_comments(statement).lstrip("; \t\r\n")
        if _ENDS_TRANSACTION.match(words):
            guard.refuse(f"send {words.split()[0].upper()}")


def _refuse_commit(connection: Connection) -> None:
    guard = _guard(connection)
    if guard is not None:
        guard.refuse("commit its connection")


def _refuse_rollback(connection: Connection) -> None:
    guard = _guard(connection)
    if guard is not None and not guard.flushing:
        guard.refuse("roll back its connection")
