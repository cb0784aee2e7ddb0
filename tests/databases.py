"""Databases for tests, used again: to empty one takes milliseconds, to create and drop one takes most of a second."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar
from uuid import uuid4

import asyncpg

from tests.background import Background
from tests.servers import Servers, drop_database

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_FIRST_OWN_OID = 16384
"""PostgreSQL numbers its own objects below this, and everything that somebody creates from here on."""

# Copies of a template have its object ids. What is changed in place is compared as well.
_SCHEMA = f"""
WITH objects (line) AS (
    SELECT concat_ws('|', 'class', oid, relname, relkind, relnamespace, reloptions, relacl)
      FROM pg_class WHERE oid >= {_FIRST_OWN_OID} AND relpersistence <> 't'
    UNION ALL SELECT concat_ws('|', 'column', attrelid, attnum, attname, atttypid, atttypmod, attnotnull, attidentity)
      FROM pg_attribute WHERE attrelid >= {_FIRST_OWN_OID}
    UNION ALL SELECT concat_ws('|', 'default', oid) FROM pg_attrdef
    UNION ALL SELECT concat_ws('|', 'constraint', oid, conname, convalidated)
      FROM pg_constraint WHERE oid >= {_FIRST_OWN_OID}
    UNION ALL SELECT concat_ws('|', 'trigger', oid, tgname, tgenabled) FROM pg_trigger
    UNION ALL SELECT concat_ws('|', 'function', oid, proname, md5(prosrc)) FROM pg_proc WHERE oid >= {_FIRST_OWN_OID}
    UNION ALL SELECT concat_ws('|', 'type', oid, typname) FROM pg_type WHERE oid >= {_FIRST_OWN_OID}
    UNION ALL SELECT concat_ws('|', 'schema', oid, nspname, nspacl)
      FROM pg_namespace WHERE oid >= {_FIRST_OWN_OID} AND nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT concat_ws('|', 'extension', oid, extname, extversion) FROM pg_extension
    UNION ALL SELECT concat_ws('|', 'setting', setrole, setconfig) FROM pg_db_role_setting
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM objects
"""

_SIZE = "SELECT pg_database_size(current_database())"
_GROWTH = 4_000_000
"""Bytes by which a database may grow before it is dropped: many rows are deleted slowly and leave statistics behind."""

_DISCONNECT = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
"""End every other connection and wait until it has gone, with its transaction and its locks."""


@dataclass(frozen=True)
class _Snapshot:
    """What a template holds: the fingerprint of its schema, its size, the rows of its tables, its sequences."""

    schema: str
    size: int
    tables: tuple[str, ...]
    rows: dict[str, str]
    sequences: tuple[tuple[str, int, bool], ...]

    @classmethod
    async def of(cls, connection: Connection) -> _Snapshot:
        """Read the database that a connection is connected to."""
        schema = await connection.fetchval(_SCHEMA)
        tables = [
            f"{row[0]}.{row[1]}"
            for row in await connection.fetch(
                "SELECT quote_ident(schemaname), quote_ident(tablename) FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
        ]
        rows = {one: await connection.fetchval(f"SELECT jsonb_agg(to_jsonb(t))::text FROM {one} t") for one in tables}
        sequences = await connection.fetch(
            "SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL"
            " FROM pg_sequences"
        )
        return cls(
            schema,
            await connection.fetchval(_SIZE),
            tuple(tables),
            {name: found for name, found in rows.items() if found},
            tuple((name, value, called) for name, value, called in sequences),
        )

    async def restore(self, connection: Connection) -> bool:
        """Give a copy of the template the template's content again; return False if the copy is not worth that."""
        await connection.execute(_DISCONNECT)
        if await connection.fetchval(_SCHEMA) != self.schema:
            return False
        if await connection.fetchval(_SIZE) > self.size + _GROWTH:
            return False
        async with connection.transaction():
            # In one statement, so that foreign keys are checked when everything has gone.
            if self.tables:
                deletions = ", ".join(f"d{number} AS (DELETE FROM {one})" for number, one in enumerate(self.tables))
                await connection.execute(f"WITH {deletions} SELECT")
            for name, value, called in self.sequences:
                await connection.execute("SELECT setval($1::text::regclass, $2, $3)", name, value, called)
            if self.rows:
                parts = [
                    f"i{number} AS (INSERT INTO {one} OVERRIDING SYSTEM VALUE"
                    f" SELECT * FROM jsonb_populate_recordset(null::{one}, ${number}::text::jsonb))"
                    for number, one in enumerate(self.rows, 1)
                ]
                await connection.execute(f"WITH {', '.join(parts)} SELECT", *self.rows.values())
        return True


@dataclass
class Template:
    """A database of which copies are made, and the copies that no test uses now."""

    name: str
    snapshot: _Snapshot
    idle: list[str] = field(default_factory=list)


class Databases:
    """Creates databases on a server for tests, and hands those that tests have given back out again.

    Every database that it hands out looks like a new copy of its template: the same schema, rows and sequences, and nobody
    is connected but this, by one connection that waits. Databases whose schema a test has changed are dropped.
    """

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self._background = Background()
        self._connections: dict[str, Connection] = {}
        """Kept open: on a new connection the first statements cost more than all others of a restoration."""
        self._lent: dict[str, Template] = {}
        self._templates: dict[object, Template] = {}

    def template(self, key: object, prepare: Callable[[str], None]) -> Template:
        """Return the template of this key. ``prepare`` fills it when it is asked for the first time, given its URL."""
        if key not in self._templates:
            name = f"orchestrator_template_{uuid4().hex[:12]}"
            self._run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0'))
            prepare(self.servers.database_url(name))
            self._templates[key] = Template(name, self._run(self._snapshot(name)))
        return self._templates[key]

    def take(self, template: Template) -> str:
        """Return the URL of a database that looks like its template."""
        if template.idle:
            name = template.idle.pop()
        else:
            name = f"orchestrator_test_{uuid4().hex[:12]}"
            self._run(self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template.name}"'))
        self._lent[name] = template
        return self.servers.database_url(name)

    def give_back(self, url: str) -> None:
        """Restore a database for the next test, or drop it if that cannot be."""
        name = url.rpartition("/")[2]
        template = self._lent.pop(name)
        if self._run(self._restore(name, template)):
            template.idle.append(name)
        else:
            self._run(self._drop(name))

    def close(self) -> None:
        """Drop everything that was created here."""
        idle = [name for template in self._templates.values() for name in (*template.idle, template.name)]
        for name in (*self._lent, *idle):
            self._run(self._drop(name))
        for url in [*self._connections]:
            self._run(self._close(url))
        self._background.close()

    def _run(self, call: Coroutine[object, object, T]) -> T:
        return self._background.run(call, 120)

    async def _connection(self, url: str) -> Connection:
        """Return the only connection from here; made again when it was ended, as by a restart of the server."""
        if url not in self._connections or self._connections[url].is_closed():
            self._connections[url] = await asyncpg.connect(url)
        return self._connections[url]

    async def _close(self, url: str) -> None:
        if (connection := self._connections.pop(url, None)) is not None:
            await connection.close(timeout=5)

    async def _execute(self, statement: str) -> None:
        await (await self._connection(self.servers.dsn())).execute(statement)

    async def _drop(self, name: str) -> None:
        await self._close(self._url(name))
        await drop_database(await self._connection(self.servers.dsn()), name)

    def _url(self, name: str) -> str:
        return self.servers.database_url(name).replace("+asyncpg", "")

    async def _snapshot(self, name: str) -> _Snapshot:
        try:
            return await _Snapshot.of(await self._connection(self._url(name)))
        finally:
            await self._close(self._url(name))  # or it could not be copied

    async def _restore(self, name: str, template: Template) -> bool:
        try:
            return await template.snapshot.restore(await self._connection(self._url(name)))
        except asyncpg.InvalidCatalogNameError:
            return False  # the test has dropped it
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError):
            return False  # the test has ended all connections, this one just now
