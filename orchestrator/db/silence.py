"""Throw away connections that have fallen silent, so that nothing waits for ever on one.

A connection that waits for an answer is suspect after half of the time for which a program may be silent. Then the server is
asked about it, on a connection of its own. No answer: the server, or the way to it, is gone. An answer: it says whether it is
still at work for the connection, as it may be for hours with the statement of an author, or has long been waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import asyncpg
import structlog

from orchestrator.db.asking import Asking
from orchestrator.db.connection import OWN_SESSION, STATEMENT_TIMEOUT_MS, Hosts, has_answered
from orchestrator.stopping import wait_or_stop

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

logger = structlog.get_logger(__name__)

SUSPECT_AFTER = 3.0
"""Seconds without an answer after which a connection is suspect, at least: less would ask about statements that are slow."""

INTERVAL = 0.5
"""Seconds between two looks at the connections, which cost no message."""

_AT_REST = """
SELECT wanted.pid
  FROM unnest($1::int[]) wanted (pid)
  LEFT JOIN pg_stat_activity a ON a.pid = wanted.pid AND a.datname = current_database()
 WHERE a.pid IS NULL
    OR a.state LIKE 'idle%' AND a.state_change < clock_timestamp() - interval '1 second'
"""
"""Those of these server processes that are not there, or have waited for their client for a while."""

# The name of the sessions is this program's own. Their process ids may belong to others' sessions by now.
_END = """
SELECT pid, CASE WHEN wait_event_type = 'Client' AND state_change < clock_timestamp() - interval '1 second'
                 THEN pg_terminate_backend(pid) ELSE false END AS ended
  FROM pg_stat_activity
 WHERE pid = ANY($1::int[]) AND datname = current_database() AND usename = current_user
   AND application_name = current_setting('application_name')
"""
"""Those of these sessions that are there. What waits for its client is ended, with the transaction in which it is."""

_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class _Watched:
    asking: Asking
    limit: float
    """Seconds that the server may take for one statement."""


class SilenceWatch:
    """Looks at the connections of one event loop while they wait.

    Args:
        silent_after: seconds without an answer after which a server counts as gone.
    """

    def __init__(self, hosts: Hosts, application_name: str, silent_after: float) -> None:
        self._hosts = hosts
        self._application_name = application_name
        self._suspect_after = max(silent_after / 2, SUSPECT_AFTER)
        self._watched: WeakKeyDictionary[Any, _Watched] = WeakKeyDictionary()
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._left: set[int] = set()
        self._end_left_at = 0.0
        self.is_pooled = False
        """Whether a pooler is between, whose process ids say nothing about the server's."""

    def add(self, connection: Connection, *, is_own: bool) -> None:
        """Watch a connection that has just been opened.

        Args:
            is_own: whether it carries the engine's statements only, which the server ends by itself after a while.
        """
        asking = Asking(connection)
        connection._protocol = asking  # type: ignore[union-attr]  # noqa: SLF001 - see there
        limit = STATEMENT_TIMEOUT_MS / 1000 + self._suspect_after if is_own else float("inf")
        self._watched[connection] = _Watched(asking, limit)

    def start(self) -> None:
        """Begin to look, on the running event loop."""
        if self._task is None:
            self._stopping.clear()
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more, and close whatever is still open without waiting for the server."""
        if self._task is not None:
            self._stopping.set()
            self._task.cancel()  # it may be waiting for the server
            await asyncio.wait({self._task})
            self._task = None
        self.terminate_all()

    def terminate_all(self) -> None:
        """Close whatever is open without waiting for the server; who waits for an answer gets an error."""
        for connection in list(self._watched):
            if not connection.is_closed():
                connection.terminate()

    async def _run(self) -> None:
        while not await wait_or_stop(INTERVAL, self._stopping):
            try:
                suspects = self._find(self._watched)
                if suspects:
                    await self._judge(suspects)
                if self._left and asyncio.get_running_loop().time() >= self._end_left_at:
                    await self._end_left()
            except Exception:
                logger.exception("connections not watched once")

    def _find(self, connections: Iterable[Any]) -> dict[Any, float]:
        """Return those of these connections that are suspect, with the seconds for which each has waited."""
        waits = {one: self._watched[one].asking.waits_for() for one in list(connections) if not one.is_closed()}
        return {one: seconds for one, seconds in waits.items() if seconds >= self._suspect_after}

    async def _judge(self, suspects: dict[Any, float]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            at_rest = await self._ask(one.get_server_pid() for one in suspects)
        except _FAILURES as error:
            if has_answered(error) or loop.time() - began > self._hosts.patience + SUSPECT_AFTER:
                return  # it is there, but refuses this connection; or this program could not listen
            self._throw_away(suspects, "no answer to a new connection either")
            return
        silent = {one for one in suspects if one.get_server_pid() in at_rest and not self.is_pooled}
        overdue = {one for one, seconds in suspects.items() if seconds > self._watched[one].limit}
        self._throw_away(silent | overdue, "a new connection works")

    async def _ask(self, pids: Iterable[int]) -> set[int]:
        """Return those of these server processes that are not at work."""
        return {row["pid"] for row in await self._fetch(_AT_REST, list(pids))}

    async def _end_left(self) -> None:
        """End in the server what was thrown away here: it may have locked what the step's next attempt wants."""
        left = self._left - {one.get_server_pid() for one in self._watched if not one.is_closed()}
        self._end_left_at = asyncio.get_running_loop().time() + self._suspect_after
        try:
            found = await self._fetch(_END, list(left))
        except _FAILURES:
            return  # later, when the server answers
        self._left = {row["pid"] for row in found if not row["ended"]}

    async def _fetch(self, query: str, pids: list[int]) -> list[asyncpg.Record]:
        """Ask on a connection of its own."""
        async with asyncio.timeout(self._hosts.patience):
            connection = await self._hosts.connect(self._application_name, OWN_SESSION)
            try:
                found: list[asyncpg.Record] = await connection.fetch(query, pids)
                return found
            finally:
                connection.terminate()

    def _throw_away(self, connections: Iterable[Any], why: str) -> None:
        silent = self._find(connections)  # an answer may have come meanwhile
        for connection in silent:
            if not self.is_pooled:
                self._left.add(connection.get_server_pid())
            connection.terminate()
        if silent:
            logger.warning(
                "PostgreSQL is silent; connections thrown away",
                server=self._hosts.place,
                seconds=round(max(silent.values()), 1),
                connections=len(silent),
                because=why,
            )
