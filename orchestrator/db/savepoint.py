"""Go on in a transaction after an error that has aborted it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from orchestrator.db.session import get_connection


class Savepoint:
    """A point in a session's transaction to which one may go back any number of times."""

    def __init__(self, connection: AsyncConnection, name: str) -> None:
        self._connection = connection
        self._name = name

    @classmethod
    async def set(cls, session: AsyncSession, name: str) -> Savepoint:
        """Set a savepoint after all that the session has to send."""
        # What the session would send later would be lost with what follows the savepoint.
        await session.flush()
        savepoint = cls(await get_connection(session), name)
        await savepoint._send("SAVEPOINT")
        return savepoint

    async def go_back(self) -> None:
        """Take back what was sent since."""
        await self._send("ROLLBACK TO SAVEPOINT")

    async def release(self) -> None:
        """Keep what was sent since, and forget the savepoint."""
        await self._send("RELEASE SAVEPOINT")

    async def _send(self, words: str) -> None:
        await self._connection.exec_driver_sql(f"{words} {self._name}")
