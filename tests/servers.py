"""The servers under the tests, and how to get a corner of one's own on them."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of ``http://…``: each of httpx's would read the system's certificates, which takes longer than its request."""


class NoServersError(Exception):
    """Nobody has said where the servers are; the text says how to get some."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where PostgreSQL, RabbitMQ and its management API are."""

    database: str
    amqp: str
    management: str

    @classmethod
    def from_environment(cls) -> Servers:
        """Read the variables that ``scripts/services env`` prints.

        Raises:
            NoServersError: one is missing.
        """
        names = ("ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_AMQP_URL", "ORCHESTRATOR_MANAGEMENT_URL")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise NoServersError(
                f'{", ".join(missing)} not set: run scripts/test, or: scripts/services up; eval "$(scripts/services env)"'
            )
        return cls(*(os.environ[name] for name in names))

    def dsn(self) -> str:
        """Return the given database, for asyncpg."""
        return self.database.replace("+asyncpg", "")

    def database_url(self, name: str) -> str:
        """Another database of the same server."""
        return urlunsplit(urlsplit(self.database)._replace(path=f"/{name}"))

    def amqp_url(self, vhost: str) -> str:
        """Another virtual host of the same broker."""
        return urlunsplit(urlsplit(self.amqp)._replace(path=f"/{quote(vhost, safe='')}"))

    @property
    def user(self) -> str:
        """The broker user."""
        return urlsplit(self.amqp).username or "guest"

    def call(self, method: str, path: str, body: object = None) -> object:
        """Ask the management API; return its JSON answer."""
        parts = urlsplit(self.amqp)
        credentials = base64.b64encode(f"{parts.username or 'guest'}:{parts.password or 'guest'}".encode()).decode()
        request = urllib.request.Request(
            f"{self.management}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Basic {credentials}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def make_vhost(servers: Servers, name: str) -> None:
    """Make a virtual host; who makes one may use it."""
    servers.call("PUT", f"vhosts/{name}")


def drop_vhost(servers: Servers, name: str) -> None:
    """Delete a virtual host with everything in it."""
    servers.call("DELETE", f"vhosts/{name}")


@retry(
    retry=retry_if_exception_type(asyncpg.InsufficientPrivilegeError),
    wait=wait_fixed(0.2),
    stop=stop_after_attempt(50),
    reraise=True,
)
async def drop_database(connection: asyncpg.Connection[asyncpg.Record], name: str) -> None:
    """Drop a database, whoever is still connected. FORCE may not end an autovacuum worker; that ends by itself."""
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
