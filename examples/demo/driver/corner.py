"""Corners of our own on the servers, one for each story: a fresh database, a fresh virtual host, two accounts with few rights."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

from .errors import DemoError

NAME = "orchestrator_demo"
"""How the names of everything that we make begin. What earlier runs have left is removed by it."""

_LOCK = 4_318_774_902  # two demos on the same servers would remove each other's corners
_EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}
_ANSWERS_ONLY = {"configure": r"^field\.", "write": r"^orchestrator\.callbacks$", "read": r"^field\."}
_ORDERS_ONLY = {"configure": r"^svc\.", "write": r"^orchestrator\.commands$", "read": r"^svc\."}


class Management:
    """RabbitMQ's management API, as the user of ``ORCHESTRATOR_AMQP_URL``."""

    def __init__(self, url: str, amqp: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(amqp)
        self.user = unquote(parts.username or "guest")
        login = f"{self.user}:{unquote(parts.password or 'guest')}"
        self._login = base64.b64encode(login.encode()).decode()

    async def call(self, method: str, path: str, body: object = None, *, may_be_gone: bool = False) -> Any:
        """Ask; return the JSON answer.

        Raises:
            DemoError: it cannot be reached, or refuses.
        """
        try:
            status, text = await asyncio.to_thread(self._call, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise DemoError(f"RabbitMQ's management API at {self.url} does not answer: {error}") from error
        if may_be_gone and status == http.HTTPStatus.NOT_FOUND:
            return None
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise DemoError(f"the broker's user {self.user} may not administer it, as the demo must ({method} {path})")
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise DemoError(f"RabbitMQ's management API answers {status} to {method} {path}: {text.decode()[:200]}")
        return json.loads(text) if text else None

    def _call(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=60)
        headers = {"Authorization": f"Basic {self._login}", "Content-Type": "application/json"}
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{parts.path}/api/{path}", content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Corner:
    """Where everything of one story is.

    Args:
        field_url: the field worker's account: it may answer callbacks, and have a queue of its own.
        service_url: another service's account: it may send commands, and have a queue for the answers.
    """

    name: str
    database_url: str
    amqp_url: str
    field_url: str
    service_url: str
    management: Management

    @property
    def dsn(self) -> str:
        """The database, for asyncpg."""
        return _dsn(self.database_url)

    async def queues(self) -> dict[str, dict[str, Any]]:
        """The queues as the management UI shows them, by name."""
        found = await self.management.call("GET", f"queues/{self.name}")
        return {queue["name"]: queue for queue in found}


class Ground:
    """The servers, which are ours alone for this demo."""

    def __init__(self, connection: asyncpg.Connection, management: Management, database: str, amqp: str) -> None:
        self._connection = connection
        self._management = management
        self._database, self._amqp = database, amqp

    @asynccontextmanager
    async def fresh_corner(self) -> AsyncIterator[Corner]:
        """Make a corner. Database and virtual host stay for people to look at; the accounts go.

        Raises:
            DemoError: the servers cannot be used for this.
        """
        name = f"{NAME}_{secrets.token_hex(3)}"
        field, service = f"{name}_field", f"{name}_crm"
        accounts = {field: secrets.token_urlsafe(12), service: secrets.token_urlsafe(12)}
        management = self._management
        try:
            await self._connection.execute(f'CREATE DATABASE "{name}"')
            await management.call("PUT", f"vhosts/{name}")
            await management.call("PUT", f"permissions/{name}/{quote(management.user, safe='')}", _EVERYTHING)
            for account, password in accounts.items():
                await management.call("PUT", f"users/{account}", {"password": password, "tags": ""})
            await management.call("PUT", f"permissions/{name}/{field}", _ANSWERS_ONLY)
            await management.call("PUT", f"permissions/{name}/{service}", _ORDERS_ONLY)
            await _allow_keys(management, name, field, "orchestrator.callbacks", "callback.(completed|failed|progress)")
            await _allow_keys(management, name, service, "orchestrator.commands", "workflow.start")
            yield Corner(
                name=name,
                database_url=urlunsplit(urlsplit(self._database)._replace(path=f"/{name}")),
                amqp_url=_as_account(self._amqp, name),
                field_url=_as_account(self._amqp, name, field, accounts[field]),
                service_url=_as_account(self._amqp, name, service, accounts[service]),
                management=management,
            )
        except asyncpg.InsufficientPrivilegeError as error:
            raise DemoError(f"the database's user may not make a database for the demo: {error}") from error
        finally:
            for account in accounts:
                with suppress(
                    DemoError
                ):  # whatever went wrong before is worth telling; the next demo removes them, too
                    await management.call("DELETE", f"users/{account}", may_be_gone=True)


@asynccontextmanager
async def own_ground() -> AsyncIterator[Ground]:
    """Make sure that no other demo runs, and remove what earlier ones have left.

    Raises:
        DemoError: another one runs, or the servers cannot be used for this.
    """
    database, amqp = _variable("ORCHESTRATOR_DATABASE_URL"), _variable("ORCHESTRATOR_AMQP_URL")
    management = Management(_variable("ORCHESTRATOR_MANAGEMENT_URL"), amqp)
    try:
        connection = await asyncpg.connect(_dsn(database), timeout=60)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise DemoError(f"PostgreSQL cannot be used: {str(error) or type(error).__name__}") from error
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise DemoError("another demo runs on these servers at this moment: let it end first")
        await _remove_old(connection, management)
        yield Ground(connection, management, database, amqp)
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError):
            await connection.close(timeout=60)


async def _remove_old(connection: asyncpg.Connection, management: Management) -> None:
    for row in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"{NAME}_"):
        await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    for kind in ("vhosts", "users"):
        for found in await management.call("GET", kind):
            if found["name"].startswith(f"{NAME}_"):
                await management.call("DELETE", f"{kind}/{quote(found['name'], safe='')}", may_be_gone=True)


async def _allow_keys(management: Management, vhost: str, account: str, exchange: str, keys: str) -> None:
    grant = {"exchange": exchange, "write": "^{}$".format(keys.replace(".", r"\.")), "read": "^$"}
    await management.call("PUT", f"topic-permissions/{vhost}/{account}", grant)


def _as_account(url: str, vhost: str, user: str | None = None, password: str | None = None) -> str:
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    login = login if user is None else f"{user}:{password}"
    return urlunsplit(parts._replace(netloc=f"{login}@{host}" if login else host, path=f"/{vhost}"))


def _dsn(url: str) -> str:
    return url.replace("+asyncpg", "", 1)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise DemoError(f'{name} is not set: run scripts/demo, or first eval "$(scripts/services env)"')
    return value
