"""A place of its own on the servers for each story: a fresh database, a fresh virtual host, two accounts with few rights."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.background import Background
from tests.servers import Servers, drop_database, drop_vhost, make_vhost

from .patience import DemoError

NAME = "orchestrator_demo"
"""How the names of everything that we make begin. What earlier runs have left is removed by it."""

_LOCK = 4_318_774_902  # two demos on the same servers would remove each other's places
_ACCOUNTS = {
    "field": (
        {"configure": r"^field\.", "write": r"^orchestrator\.callbacks$", "read": r"^field\."},
        {"exchange": "orchestrator.callbacks", "write": r"^callback\.(completed|failed|progress)$", "read": "^$"},
    ),
    "crm": (
        {"configure": r"^amq\.gen", "write": r"^orchestrator\.commands$", "read": r"^amq\.gen"},
        {"exchange": "orchestrator.commands", "write": r"^workflow\.start$", "read": "^$"},
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one story is.

    Args:
        field_url: the field worker's account: it may answer callbacks, and has a queue of its own.
        service_url: another service's account: it may send commands, and has a queue for the answers.
    """

    name: str
    servers: Servers
    database_url: str
    amqp_url: str
    field_url: str
    service_url: str

    def queues(self) -> dict[str, int]:
        """Return how many messages are in each queue, as the management UI shows them."""
        found: Any = self.servers.call("GET", f"queues/{self.name}")
        return {queue["name"]: queue.get("messages", 0) for queue in found}


@dataclass(frozen=True, slots=True)
class Ground:
    """The servers, which no other demo uses meanwhile."""

    servers: Servers
    background: Background
    connection: asyncpg.Connection[asyncpg.Record]

    def clear(self) -> None:
        """Remove what earlier demos have left."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
        for row in self.background.run(self.connection.fetch(query, f"{NAME}_")):
            self.background.run(drop_database(self.connection, row["datname"]))
        for name in self._names("vhosts"):
            drop_vhost(self.servers, name)
        for name in self._names("users"):
            self.servers.call("DELETE", f"users/{name}")

    def _names(self, kind: str) -> list[str]:
        found: Any = self.servers.call("GET", kind)
        return [one["name"] for one in found if one["name"].startswith(f"{NAME}_")]

    @contextmanager
    def fresh_place(self) -> Iterator[Place]:
        """Make a place. Database and virtual host stay for people to look at; the accounts go."""
        name, servers = f"{NAME}_{secrets.token_hex(3)}", self.servers
        self.background.run(self.connection.execute(f'CREATE DATABASE "{name}"'))
        make_vhost(servers, name)
        amqp_url = servers.amqp_url(name)
        parts, urls = urlsplit(amqp_url), {}
        try:
            for kind, (permissions, keys) in _ACCOUNTS.items():
                user, password = f"{name}_{kind}", secrets.token_urlsafe(12)
                servers.call("PUT", f"users/{user}", {"password": password, "tags": ""})
                servers.call("PUT", f"permissions/{name}/{user}", permissions)
                servers.call("PUT", f"topic-permissions/{name}/{user}", keys)
                host = parts.netloc.rpartition("@")[2]
                urls[kind] = urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))
            yield Place(name, servers, servers.database_url(name), amqp_url, urls["field"], urls["crm"])
        finally:
            for kind in _ACCOUNTS:
                with suppress(OSError):  # what went wrong before matters more; the next demo removes them, too
                    servers.call("DELETE", f"users/{name}_{kind}")


@contextmanager
def own_ground() -> Iterator[Ground]:
    """Make sure that no other demo runs, and remove what earlier ones have left.

    Raises:
        DemoError: another one runs.
    """
    servers, background = Servers.from_environment(), Background()
    connection = background.run(asyncpg.connect(servers.dsn()))
    try:
        if not background.run(connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)):
            raise DemoError("another demo runs on these servers: wait until it ends")
        ground = Ground(servers, background, connection)
        ground.clear()
        yield ground
    finally:
        background.run(connection.close(timeout=5))
        background.close()
