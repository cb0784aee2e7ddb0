"""What objects remember of the database, when what they remember is rolled back."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import get_connection

Undo = Callable[[], None]

_KEY = "orchestrator.savepoints"

_COMMENT = re.compile(r"/\*|--[^\n]*")
_IN_COMMENT = re.compile(r"/\*|\*/")
_NAME = r"(?P<name>\"(?:[^\"]|\"\")+\"|[^\s;\"]+)"
_SET = re.compile(rf"savepoint\s+{_NAME}", re.IGNORECASE)
_RELEASED = re.compile(rf"release\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)
_BACK = re.compile(rf"rollback\s+(?:(?:work|transaction)\s+)?to\s+(?:savepoint\s+)?{_NAME}", re.IGNORECASE)


async def undo_on_rollback(session: AsyncSession, undo: Undo) -> None:
    """Call something when what the session has sent until now is rolled back: all of it, or by a savepoint.

    It does not matter who sets the savepoint: the session, its connection or SQL text.
    """
    connection = (await get_connection(session)).sync_connection
    assert connection is not None  # noqa: S101 - tells the type checker: the session has just begun with it
    savepoints = session.info.get(_KEY)
    if savepoints is None or savepoints.connection is not connection:
        savepoints = session.info[_KEY] = _Savepoints(connection)
    savepoints.add(undo)


def forget_undo(session: AsyncSession) -> None:
    """What the session has sent stays, whatever it rolls back from now on."""
    savepoints = session.info.pop(_KEY, None)
    if savepoints is not None:
        savepoints.clear()


def without_comments(statement: str) -> str:
    """The statement as PostgreSQL reads it, up to its first string: block comments nest there."""
    kept, position, depth = [], 0, 0
    while (found := (_IN_COMMENT if depth else _COMMENT).search(statement, position)) is not None:
        if not depth:
            kept += [statement[position : found.start()], " "]
        if found.group() == "/*":
            depth += 1
        elif depth:
            depth -= 1
        position = found.end()
    return "".join(kept if depth else [*kept, statement[position:]])


class _Savepoints:
    """The savepoints of a connection's transaction, and what is to be undone, in their order."""

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
        """It goes with all that were set after it; what was sent since then now hangs on the one around it."""
        if name in self._stack:
            since = len(self._stack) - 1 - self._stack[::-1].index(name)
            self._stack[since:] = [one for one in self._stack[since:] if not isinstance(one, str)]

    def _back_to(self, name: str) -> None:
        # One that was set before anybody listened is not in the stack, and all of that came after it.
        while self._stack:
            last = self._stack.pop()
            if last == name:
                self._stack.append(last)  # it stays, and can be gone back to again
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
    """A name as PostgreSQL compares it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
