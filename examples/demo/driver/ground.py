"""A place of its own on the servers for each story: a fresh database, a fresh virtual host, two accounts with few rights."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

from .errors import DemoError
from .web import ask

NAME = "orchestrator_demo"
"""How the names of everything that we make begin. What earlier runs have left is removed by it."""

_LOCK = 4_318_774_902  # two demos on the same servers would remove each other's places
_EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
_FIELD = {"configure": r"^field\.", "write": r"^orchestrator\.callbacks$", "read": r"^field\."}
_SERVICE = {"configure": r"^svc\.", "write": r"^orchestrator\.commands$", "read": r"^svc\."}
_FIELD_KEYS = {"exchange": "orchestrator.callbacks", "write": r"^callback\.(completed|failed|progress)$", "read": "^$"}
_SERVICE_KEYS = {"exchange": "orchestrator.commands", "write": r"^workflow\.start$", "read": "^$"}


class Management:
    """RabbitMQ's management API, as the user of ``ORCHESTRATOR_AMQP_URL``."""

    def __init__(self, url: str, amqp: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(amqp)
        self.user = unquote(parts.username or "guest")
        self._login = base64.b64encode(f"{self.user}:{unquote(parts.password or 'guest')}".encode()).decode()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Send a request; return the JSON answer. What is to be deleted may be gone already.

        Raises:
            DemoError: it is refused.
        """
        status, answer = await ask(method, f"{self.url}/api/{path}", body, login=self._login)
        if status >= HTTPStatus.BAD_REQUEST and (method, status) != ("DELETE", HTTPStatus.NOT_FOUND):
            raise DemoError(
                f"RabbitMQ's management API answers {status} to {method} {path}: {answer}. The user {self.user} must "
                "be an administrator"
            )
        return answer


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one story is.

    Args:
        field_url: the field worker's account: it may answer callbacks, and has a queue of its own.
        service_url: another service's account: it may send commands, and has a queue for the answers.
    """

    name: str
    database_url: str
    amqp_url: str
    field_url: str
    service_url: str
    management: Management

    async def queues(self) -> dict[str, int]:
        """Return how many messages are in each queue, as the management UI shows them."""
        found = await self.management.call("GET", f"queues/{self.name}")
        return {queue["name"]: queue.get("messages", 0) for queue in found}


class Ground:
    """The servers, which no other demo uses meanwhile."""

    def __init__(self, connection: asyncpg.Connection, management: Management, database: str, amqp: str) -> None:
        self._connection, self._management = connection, management
        self._database, self._amqp = database, amqp

    @asynccontextmanager
    async def fresh_place(self) -> AsyncIterator[Place]:
        """Make a place. Database and virtual host stay for people to look at; the accounts go."""
        name, call = f"{NAME}_{secrets.token_hex(3)}", self._management.call
        await self._connection.execute(f'CREATE DATABASE "{name}"')
        await call("PUT", f"vhosts/{name}")
        await call("PUT", f"permissions/{name}/{quote(self._management.user, safe='')}", _EVERYTHING)
        accounts = {f"{name}_field": (_FIELD, _FIELD_KEYS), f"{name}_crm": (_SERVICE, _SERVICE_KEYS)}
        passwords = {account: secrets.token_urlsafe(12) for account in accounts}
        host = urlsplit(self._amqp).netloc.rpartition("@")[2]
        field, service = (_at(self._amqp, name, f"{user}:{password}@{host}") for user, password in passwords.items())
        try:
            for account, (permissions, keys) in accounts.items():
                await call("PUT", f"users/{account}", {"password": passwords[account], "tags": ""})
                await call("PUT", f"permissions/{name}/{account}", permissions)
                await call("PUT", f"topic-permissions/{name}/{account}", keys)
            database, amqp = _at(self._database, name), _at(self._amqp, name)
            yield Place(name, database, amqp, field, service, self._management)
        finally:
            for account in accounts:
                with suppress(
                    DemoError, OSError
                ):  # what went wrong before matters more; the next demo removes them, too
                    await call("DELETE", f"users/{account}")


@asynccontextmanager
async def own_ground() -> AsyncIterator[Ground]:
    """Make sure that no other demo runs, and remove what earlier ones have left.

    Raises:
        DemoError: another one runs, or the servers cannot be used for this.
    """
    database, amqp = _variable("ORCHESTRATOR_DATABASE_URL"), _variable("ORCHESTRATOR_AMQP_URL")
    management = Management(_variable("ORCHESTRATOR_MANAGEMENT_URL"), amqp)
    connection = await asyncpg.connect(dsn(database))
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise DemoError("another demo runs on these servers: wait until it ends")
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"{NAME}_"):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
        for kind in ("vhosts", "users"):
            for found in await management.call("GET", kind):
                if found["name"].startswith(f"{NAME}_"):
                    await management.call("DELETE", f"{kind}/{quote(found['name'], safe='')}")
        yield Ground(connection, management, database, amqp)
    finally:
        await connection.close(timeout=60)


def dsn(url: str) -> str:
    """Return a database's URL for asyncpg."""
    return url.replace("+asyncpg", "", 1)


def _at(url: str, path: str, netloc: str | None = None) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=netloc or parts.netloc, path=f"/{path}"))


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise DemoError(f'{name} is not set: run scripts/demo, or first eval "$(scripts/services env)"')
