"""Notice that another server has taken the primary's place while connections to the old one hang.

A primary whose machine has lost its power, or the network, does not close its connections: whoever waits on one waits until
the operating system gives up, a quarter of an hour later, and the client library cannot be made to stop waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg
import structlog

from orchestrator.db.connection import OWN_SESSION, Hosts, has_answered
from orchestrator.stopping import wait_or_stop

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record]

logger = structlog.get_logger(__name__)

INTERVAL = 2.0
"""Seconds between two questions whether the server is still there."""

RETRY_AFTER = 1.0
"""Seconds between two attempts to connect."""

_IDENTITY = "SELECT pg_postmaster_start_time()"
_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class FailoverWatch:
    """Asks the server on a connection of its own, and when another one answers, cuts the connections to the one before.

    Only what was opened before the server fell silent is cut. A server that is merely slow, or away with no other in its place,
    loses no connection.
    """

    def __init__(self, hosts: Hosts, application_name: str, patience: float) -> None:
        self._hosts = hosts
        self._application_name = application_name
        self._patience = patience
        self._opened: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._server: tuple[str, object] | None = None
        self._unanswered_since: float | None = None

    @property
    def unanswered_for(self) -> float:
        """For how many seconds no question has been answered; 0 while the server answers."""
        since = self._unanswered_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    def add(self, connection: Connection | PoolConnectionProxy[asyncpg.Record]) -> None:
        """Watch over a connection that has just been opened."""
        self._opened[connection] = asyncio.get_running_loop().time()

    async def run(self, stopping: asyncio.Event) -> None:
        """Watch until ``stopping`` is set, or this is cancelled."""
        silent_since = self._unanswered_since = asyncio.get_running_loop().time()
        while not stopping.is_set():
            try:
                connection = await self._hosts.connect(self._application_name, OWN_SESSION)
            except _FAILURES as error:
                if has_answered(error):
                    self._unanswered_since = None  # it has no place for this connection, or is about to end or begin
                await wait_or_stop(RETRY_AFTER, stopping)  # what needs the server says that it is away
                continue
            try:
                await self._recognize(connection, silent_since)
                silent_since = await self._ask_until_silent(connection)
            finally:
                connection.terminate()

    async def _recognize(self, connection: Connection, silent_since: float) -> None:
        try:
            async with asyncio.timeout(self._patience):
                server = (self._hosts.place, await connection.fetchval(_IDENTITY))
        except _FAILURES:
            return
        before, self._server = self._server, server
        if before is None or before == server:
            return
        old = [one for one, opened in self._opened.items() if opened < silent_since and not one.is_closed()]
        for one in old:
            one.terminate()
        if old:
            logger.warning(
                "another PostgreSQL server has taken over; connections to the one before are cut",
                before=before[0],
                now=server[0],
                connections=len(old),
            )

    async def _ask_until_silent(self, connection: Connection) -> float:
        """Return the moment since which the server has not answered."""
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def close(_: Any) -> None:
            closed.set()

        connection.add_termination_listener(close)
        while True:
            asked = loop.time()
            try:
                async with asyncio.timeout(self._patience):
                    await connection.fetchval("SELECT 1")
            except _FAILURES as error:
                waited = loop.time() - asked
                # Longer: this program could not listen.
                if isinstance(error, TimeoutError) and waited < self._patience + RETRY_AFTER:
                    logger.warning(
                        "PostgreSQL is silent; connections thrown away",
                        server=self._hosts.place,
                        seconds=round(waited, 1),
                        connections=1,
                        because="a question was not answered",
                    )
                # Not from the question on, if this program could not listen because its event loop was blocked.
                self._unanswered_since = max(asked, loop.time() - self._patience)
                return asked
            self._unanswered_since = None
            if await wait_or_stop(INTERVAL, closed):
                self._unanswered_since = loop.time()
                return self._unanswered_since
