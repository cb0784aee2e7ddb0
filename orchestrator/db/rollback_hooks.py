"""Run undo callbacks when a savepoint or the transaction is rolled back.

Savepoints in SQL text count as well: SQLAlchemy has no events for those, so the statements themselves are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection
from orchestrator.db.sql_text import without_comments

Undo = Callable[[], None]

_KEY = "orchestrator.savepoints"

_NAME = r"(?P<name>\"(?:[^\"]|\"\")+\"|[^\s;\"]+)"
_SET = re.compile(rf"savepoint\s+{_NAME}", re.IGNORECASE)
_RELEASED = re.compile(rf"release\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)
_BACK = re.compile(rf"rollback\s+(?:(?:work|transaction)\s+)?to\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)


async def undo_on_rollback(session: AsyncSession, undo: Undo) -> None:
    """Call ``undo`` when what the session has sent until now is rolled back: with the transaction, or to a savepoint.

    It does not matter what sets the savepoint: the session, its connection or SQL text.
    """
    connection = (await get_connection(session)).sync_connection
    assert connection is not None  # noqa: S101 - tells the type checker: the session has just begun with it
    savepoints = session.info.get(_KEY)
    if savepoints is None or savepoints.connection is not connection:
        savepoints = session.info[_KEY] = _Savepoints(connection)
    savepoints.add(undo)


def forget_undo(session: AsyncSession) -> None:
    """Drop all undo callbacks of a session: what it has sent will be committed, or lost together with its objects."""
    savepoints = session.info.pop(_KEY, None)
    if savepoints is not None:
        savepoints.clear()


class _Savepoints:
    """The savepoints of a connection's transaction and the undo callbacks, in their order."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._stack: list[str | Undo] = []
        event.listen(connection, "before_cursor_execute", self._see)
        event.listen(connection, "rollback", self._rolled_back)
        event.listen(connection, "commit", self._committed)

    def add(self, undo: Undo) -> None:
        self._stack.append(undo)

    def clear(self) -> None:
        self._stack.clear()

    def _see(self, _: Connection, __: object, statement: str, *___: object) -> None:
        words = without_comments(statement).lstrip("; \t\r\n")
        if found := _SET.match(words):
            self._stack.append(_folded(found["name"]))
        elif found := _BACK.match(words):
            self._back_to(_folded(found["name"]))
        elif found := _RELEASED.match(words):
            self._release(_folded(found["name"]))

    def _release(self, name: str) -> None:
        """Remove a savepoint and all set after it; their undo callbacks now belong to the savepoint around it."""
        if name in self._stack:
            since = len(self._stack) - 1 - self._stack[::-1].index(name)
            self._stack[since:] = [one for one in self._stack[since:] if not isinstance(one, str)]

    def _back_to(self, name: str) -> None:
        # A savepoint from before the first callback is not in the stack, and every callback came after it.
        while self._stack:
            last = self._stack.pop()
            if last == name:
                self._stack.append(last)  # the savepoint stays set
                return
            if not isinstance(last, str):
                last()

    def _rolled_back(self, _: Connection) -> None:
        while self._stack:
            last = self._stack.pop()
            if not isinstance(last, str):
                last()

    def _committed(self, _: Connection) -> None:
        self.clear()


def _folded(name: str) -> str:
    """Return a name as PostgreSQL compares it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
