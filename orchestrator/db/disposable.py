"""Databases for tests: created for them, given back the rows with which they began, and dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.db.session import Driver

MARK = "made by orchestrator.testing: tests drop it"
"""The comment on each database that is created here. What does not have it is never dropped."""

_FIND = "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1"
_COUNT_USERS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
 WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1
"""
# Generated columns cannot be inserted.
_COLUMNS = """
SELECT array_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute
 WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
"""
_SEQUENCES = """
SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL FROM pg_sequences
"""
# A transaction that a test has left open would keep its rows from being deleted.
_END_TRANSACTIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
"""


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """All rows of a database, each as PostgreSQL writes it, and its sequences."""

    tables: tuple[_Table, ...]
    sequences: tuple[tuple[str, int, bool], ...]


async def find_mark(connection: Driver, name: str) -> str | None:
    """Return the comment on a database; ``None`` when there is no such database."""
    found: str | None = await connection.fetchval(_FIND, name)
    return found


async def count_users(connection: Driver, name: str) -> int:
    """Return how many clients are connected to a database."""
    found: int = await connection.fetchval(_COUNT_USERS, name)
    return found


async def create_database(connection: Driver, name: str) -> None:
    """Create an empty database with the mark of those that tests may drop."""
    await connection.execute(f"CREATE DATABASE {_quote(name)} TEMPLATE template0")
    await connection.execute(f"COMMENT ON DATABASE {_quote(name)} IS '{MARK}'")


async def drop_database(connection: Driver, name: str) -> None:
    """Drop a database, whoever is connected."""
    await connection.execute(f"DROP DATABASE IF EXISTS {_quote(name)} WITH (FORCE)")


async def read_contents(connection: Driver) -> Contents:
    """Read everything that the connection's database holds."""
    tables = []
    for (name,) in await connection.fetch(_TABLES):
        columns = await connection.fetchval(_COLUMNS, name)
        rows = await connection.fetch(f"SELECT t::text FROM {name} t")  # noqa: S608 - quoted by PostgreSQL
        tables.append(_Table(name, tuple(columns or ()), tuple(row[0] for row in rows)))
    sequences = await connection.fetch(_SEQUENCES)
    return Contents(tuple(tables), tuple((name, value, called) for name, value, called in sequences))


async def restore_contents(connection: Driver, contents: Contents) -> None:
    """Give the connection's database the rows again that it had, and no others. Its schema must be as it was."""
    await connection.execute(_END_TRANSACTIONS)
    async with connection.transaction():
        # In one statement, so that foreign keys are checked when everything has gone, and when everything is there.
        if contents.tables:
            deletions = (f"DELETE FROM {one.name}" for one in contents.tables)  # noqa: S608 - quoted by PostgreSQL
            await connection.execute(_with(deletions))
        for name, value, called in contents.sequences:
            await connection.execute("SELECT setval($1::text::regclass, $2, $3)", name, value, called)
        filled = [one for one in contents.tables if one.rows]
        if filled:
            inserts = _with(_insert(one, number) for number, one in enumerate(filled, 1))
            await connection.execute(inserts, *(list(one.rows) for one in filled))


def _with(statements: Iterable[str]) -> str:
    parts = (f"s{number} AS ({one})" for number, one in enumerate(statements))
    return f"WITH {', '.join(parts)} SELECT"


def _insert(table: _Table, parameter: int) -> str:
    columns = ", ".join(table.columns)
    values = ", ".join(f"(r.whole).{column}" for column in table.columns)
    return (
        f"INSERT INTO {table.name} ({columns}) OVERRIDING SYSTEM VALUE"  # noqa: S608 - quoted by PostgreSQL
        f" SELECT {values} FROM (SELECT one::{table.name} AS whole FROM unnest(${parameter}::text[]) AS one OFFSET 0) AS r"
    )


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
