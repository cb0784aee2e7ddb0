"""Find out what a connection pooler such as pgbouncer does, if there is one between the programs and PostgreSQL.

Prepared statements, the lock of a pause and settings belong to a session, so every connection needs one of its own: pgbouncer's
``pool_mode = session`` (https://www.pgbouncer.org/features.html). Statements are sent without parameters here: those with
parameters are prepared first, and that is what may not work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol
from uuid import uuid4

import asyncpg

from orchestrator.errors import ConfigurationError

_ADVICE = "the engine needs pool_mode = session there, or a connection to PostgreSQL itself"

_UNEQUAL = """
DO $$ BEGIN
    IF {left} IS DISTINCT FROM {right} THEN RAISE EXCEPTION 'not the same session'; END IF;
END $$
"""


class Client(Protocol):
    """A connection, as far as it is used here."""

    async def execute(self, query: str, /) -> str:
        """Send statements without parameters."""

    def get_server_pid(self) -> int:
        """Return the process id that came with the login."""

    def terminate(self) -> None:
        """Close it without waiting."""


async def is_between(connection: Client) -> bool:
    """Return whether a pooler is between: it gives its clients other process ids than the servers have."""
    return not await _holds(connection, "pg_backend_pid()", str(connection.get_server_pid()))


async def require_sessions(connect: Callable[[], Awaitable[Client]], seconds: float) -> None:
    """Check that what one connection sets stays, and that another one works meanwhile.

    Raises:
        ConfigurationError: the pooler lends its servers for a transaction or a statement only, or has one server only.
    """
    opened: list[Client] = []
    try:
        for _ in range(2):
            opened.append(await connect())  # noqa: PERF401 - what is open when the second fails is to be closed
        first, second = opened
        async with asyncio.timeout(seconds):
            mark = str(uuid4())
            await first.execute(f"SET orchestrator.mark = '{mark}'")
            # Now the second one has a server. A pooler that lends servers gives it the one that was used last.
            await second.execute("BEGIN")
            is_kept = await _holds(first, "current_setting('orchestrator.mark', true)", f"'{mark}'")
    except TimeoutError:
        raise ConfigurationError(
            f"ORCHESTRATOR_DATABASE_URL leads to a connection pooler that gave no second connection within {seconds:g} s:"
            f" {_ADVICE}, and more servers than one (default_pool_size)"
        ) from None
    except asyncpg.PostgresError as error:
        raise ConfigurationError(
            f"ORCHESTRATOR_DATABASE_URL leads to a connection pooler that does not keep sessions ({error}): {_ADVICE}"
        ) from error
    finally:
        for one in opened:
            one.terminate()
    if not is_kept:
        raise ConfigurationError(
            f"ORCHESTRATOR_DATABASE_URL leads to a connection pooler that does not keep sessions: {_ADVICE}"
        )


async def _holds(connection: Client, left: str, right: str) -> bool:
    try:
        await connection.execute(_UNEQUAL.format(left=left, right=right))
    except asyncpg.RaiseError:
        return False
    return True
