"""What the code of a step may do with its session and connections, and when; see :mod:`orchestrator.db.step_session`."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.bridge import Bridge, current_user
from orchestrator.db.sql_text import without_comments
from orchestrator.errors import CommitNotAllowedError, ConcurrentSessionError, SessionEndedError

_ENDS_TRANSACTION = re.compile(
    r"(?:commit|end|abort|begin|start\s+transaction|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b",
    re.IGNORECASE,
)
_OUTLIVES_TRANSACTION = re.compile(
    r"set\b(?!\s+(?:local|transaction|constraints)\b)|prepare\b|listen\b|load\b|do\b|declare\b.*\bhold\b",
    re.IGNORECASE | re.DOTALL,
)
_OUTLIVES_TRANSACTION_WITHIN = re.compile(
    r"\bset_config\s*\((?![^()]*,\s*true\s*\))|\bpg_(?:try_)?advisory_lock|\bdblink_connect|\bpg_temp\b"
    r"|\b(?:create|replace|into|local|global)\s+temp(?:orary)?\b",
    re.IGNORECASE,
)
"""A false match costs a new connection; a missed one leaves a setting behind that may corrupt the next step's data."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a guard says.

    Args:
        ends_transaction: to whoever tries to end the transaction; ``{what}`` is how.
        comes_late: to whoever uses the session after its end.
    """

    ends_transaction: str
    comes_late: str


_OF_STEP: Final = Refusals(
    "a step may not {what}: the engine commits the step's writes together with its log row (savepoints are allowed)",
    "the step has ended, and its session with it: nothing is read or written through it any more"
    " (await whatever uses it before the step returns)",
)
_OTHER_THREAD = (
    "the session of a plain function is for the thread in which the engine calls it, not for threads that the function starts:"
    " read what they need before, and write what they return afterwards"
)
OPTION: Final = "orchestrator_guard"
"""The execution option of a connection that holds its :class:`SessionGuard`."""

NOT_REUSABLE: Final = "orchestrator_not_reusable"
"""Under this key a connection is marked that must not go back to the pool."""


class SessionGuard:
    """What one step's code, and what the engine, may do with the connections of that step."""

    def __init__(self, refusals: Refusals = _OF_STEP) -> None:
        self.refusals = refusals
        self.ended = False
        self.flushing = False
        self.mark = uuid4().hex
        self.violation: CommitNotAllowedError | None = None
        self.connection: Connection | None = None
        self.bridges: set[Bridge] = set()
        self._engine: Bridge | asyncio.Task[Any] | threading.Thread | None = None
        self._senders: set[Bridge | asyncio.Task[Any]] = set()

    def end(self) -> None:
        """End the step: from here on only the calling task, the engine's, may use the connections."""
        self.ended = True
        self._engine = asyncio.current_task()

    @property
    def by_engine(self) -> bool:
        """Whether the engine is running, after the step has ended."""
        return self.ended and current_user() is self._engine

    @property
    def threads_left(self) -> list[Bridge]:
        """The bridges of plain functions that have used the session, and have not ended."""
        return [bridge for bridge in self.bridges if not bridge.done()]

    def refuse(self, what: str) -> None:
        """Raise unless the engine asks; keep the error, so that a step that swallows it fails all the same."""
        if self.by_engine:
            return
        self.require_step()
        self.violation = CommitNotAllowedError(self.refusals.ends_transaction.format(what=what))
        raise self.violation

    def require_step(self) -> None:
        """Raise if the step has ended, or if this is a thread that has no way to the event loop."""
        user = current_user()
        if isinstance(user, Bridge):
            # Before it is looked whether the step has ended: who has passed is known when the step ends.
            self.bridges.add(user)
        elif isinstance(user, threading.Thread):
            raise ConcurrentSessionError(_OTHER_THREAD)
        if self.ended and user is not self._engine:
            raise SessionEndedError(self.refusals.comes_late)

    def begin_statement(self) -> None:
        """Record that a statement is being sent by whoever runs now."""
        user = current_user()
        if user is not None and not isinstance(user, threading.Thread):
            self._senders.add(user)

    def end_statement(self) -> None:
        """Record that whoever runs now has the answer to its statement."""
        self._senders.discard(current_user())

    @property
    def is_sending(self) -> bool:
        """Whether a statement of the step is under way."""
        return any(not user.done() for user in self._senders)


def install_guards(engine: AsyncEngine) -> None:
    """Make an engine refuse, on connections of step sessions, whatever would end the transaction or comes after the step."""
    sync = engine.sync_engine
    event.listen(sync, "engine_connect", _refuse_connection)
    event.listen(sync, "before_cursor_execute", _refuse_sql)
    event.listen(sync, "after_cursor_execute", _see_answer)
    event.listen(sync, "handle_error", _see_error)
    event.listen(sync, "commit", _refuse_commit)
    event.listen(sync, "rollback", _refuse_rollback)
    event.listen(sync, "checkin", _close_changed)


def _guard(connection: Connection | None) -> SessionGuard | None:
    guard = None if connection is None else connection.get_execution_options().get(OPTION)
    return guard if isinstance(guard, SessionGuard) else None


def _refuse_connection(connection: Connection) -> None:
    guard = _guard(connection)
    if guard is not None and guard.ended:
        connection.close()
        raise SessionEndedError(guard.refusals.comes_late)


def _refuse_sql(
    connection: Connection,
    cursor: DBAPICursor,  # noqa: ARG001 - the names of SQLAlchemy's event
    statement: str,
    parameters: object,  # noqa: ARG001
    context: ExecutionContext | None,  # noqa: ARG001
    executemany: bool,  # noqa: ARG001
) -> None:
    guard = _guard(connection)
    if guard is None or guard.by_engine:
        return
    guard.require_step()
    words = without_comments(statement).lstrip("; \t\r\n")
    if _ENDS_TRANSACTION.match(words):
        guard.refuse(f"send {words.split()[0].upper()}")
    if _OUTLIVES_TRANSACTION.match(words) or _OUTLIVES_TRANSACTION_WITHIN.search(statement):
        connection.info[NOT_REUSABLE] = True
    if connection is guard.connection:
        guard.begin_statement()


def _see_answer(connection: Connection, *_: object) -> None:
    if (guard := _guard(connection)) is not None:
        guard.end_statement()


def _see_error(context: ExceptionContext) -> None:
    if (guard := _guard(context.connection)) is not None:
        guard.end_statement()


def _refuse_commit(connection: Connection) -> None:
    guard = _guard(connection)
    if guard is not None:
        guard.refuse("commit its connection")


def _refuse_rollback(connection: Connection) -> None:
    guard = _guard(connection)
    # One that the step has made itself, from the session's engine, may go as it came.
    if guard is not None and connection is guard.connection and not guard.flushing:
        guard.refuse("roll back its connection")


def _close_changed(_: object, entry: ConnectionPoolEntry) -> None:
    if entry.info.pop(NOT_REUSABLE, False):
        entry.invalidate()
