"""SQL with its parameters, put together from parts; and one list's transaction, which may not take long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Driver, get_driver
from orchestrator.errors import QueryTimeoutError

TIMEOUT = 5.0
"""Seconds that one statement of a list may take."""

# The plan is made for the values at hand: one made for values in general could look for the few rows that fit by reading all of
# them. A list is read by many people at once, so no statement of it takes several processors, or time for compiling. Rows of a
# page are looked up one by one, in memory more often than not: with PostgreSQL's default, which is about rotating disks, a page
# of 1,000 rows would read whole tables instead.
SETTINGS = {
    "random_page_cost": "1.1",
    "plan_cache_mode": "force_custom_plan",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "statement_timeout": f"{TIMEOUT:.0f}s",
}


@asynccontextmanager
async def open_list(session: AsyncSession) -> AsyncIterator[Driver]:
    """Open the transaction of a list on a session's connection."""
    connection = await get_driver(session)
    async with connection.transaction():
        yield connection


@asynccontextmanager
async def bounded(session: AsyncSession) -> AsyncIterator[None]:
    """Give the statements that a block sends with a session the settings of a list's, and the same bound of time.

    Raises:
        QueryTimeoutError: one took longer than :data:`TIMEOUT`.
    """
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in SETTINGS.items())
    await session.execute(text(f"SELECT {settings}"))
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELED:
            raise _explain_timeout() from error
        raise


class Statement:
    """Collects the parameters of a statement while its text is put together."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: object, kind: str) -> str:
        """Return the SQL for a value: a parameter of this type."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    async def fetch(self, connection: Driver, sql: str) -> Sequence[asyncpg.Record]:
        """Run the statement.

        Raises:
            QueryTimeoutError: it took longer than :data:`TIMEOUT`.
        """
        try:
            return await connection.fetch(sql, *self.values)
        except asyncpg.QueryCanceledError as error:
            raise _explain_timeout() from error


_CANCELED: Final = "57014"


def _explain_timeout() -> QueryTimeoutError:
    return QueryTimeoutError(
        f"the list was not found within {TIMEOUT:.0f} s: narrow the filter, or sort by another column"
    )


class Lookups(Statement):
    """What must be known before a list's statement is made: ids in small tables. All are read by one statement.

    A plan that is made for known ids is a better one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selects: dict[str, int] = {}

    def select(self, sql: str) -> int:
        """Add a scalar subselect; return its number in the answer."""
        return self._selects.setdefault(sql, len(self._selects))

    async def read(self, connection: Driver) -> list[Any]:
        """Return the answers, and prepare the transaction for the statements that follow."""
        settings = [f"set_config('{name}', '{value}', true)" for name, value in SETTINGS.items()]
        columns = [f"({sql})" for sql in self._selects]
        (row,) = await self.fetch(connection, f"SELECT {', '.join([*columns, *settings])}")
        return list(row)[: len(columns)]
