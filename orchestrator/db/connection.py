"""One plain connection for one short command.

It is opened without SQLAlchemy, whose import takes longer than everything else that such a command does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

import asyncpg

from orchestrator.diagnostics import mark_own
from orchestrator.errors import ServerUnavailableError
from orchestrator.settings import Settings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

STATEMENT_TIMEOUT_MS = 30_000
"""For the engine's own statements, which take milliseconds: after that something is wrong, and the caller tries again."""

_PLAIN_URL = re.compile(
    r"postgresql\+asyncpg://((?P<user>[^:/?#@]+)(:(?P<password>[^:/?#@]*))?@)?"
    r"(?P<host>[A-Za-z0-9.-]+)(:(?P<port>[0-9]+))?/(?P<database>[A-Za-z0-9_.-]+)"
)


def is_plain(settings: Settings) -> bool:
    """Return whether the database's URL has no options and nothing else that only SQLAlchemy reads rightly."""
    return _PLAIN_URL.fullmatch(settings.database_url.get_secret_value()) is not None


@asynccontextmanager
async def open_connection(settings: Settings, application_name: str) -> AsyncIterator[Connection]:
    """Open a connection for the engine's own statements, by a URL that :func:`is_plain`.

    Raises:
        ServerUnavailableError: PostgreSQL does not answer or refuses the connection.
    """
    found = _PLAIN_URL.fullmatch(settings.database_url.get_secret_value())
    assert found is not None, "the URL is not plain"  # noqa: S101 - a programming error, not a user's
    user, password, host, port, database = found.group("user", "password", "host", "port", "database")
    try:
        async with asyncio.timeout(settings.connect_timeout + 1):
            connection = await asyncpg.connect(
                host=host,
                port=None if port is None else int(port),
                user=None if user is None else unquote(user),
                password=None if password is None else unquote(password),
                database=database,
                timeout=settings.connect_timeout,
                server_settings=server_settings(application_name),
            )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        place = f"{'' if user is None else f'{user}@'}{host}{'' if port is None else f':{port}'}/{database}"
        raise explain_refusal(f"postgresql://{place}", error) from error
    try:
        yield connection
    except Exception as error:
        mark_own(error)
        raise
    finally:
        await connection.close(timeout=settings.connect_timeout)


def server_settings(application_name: str) -> dict[str, str]:
    """Return the settings of a connection for the engine's own statements."""
    return {"application_name": application_name, "jit": "off", "statement_timeout": str(STATEMENT_TIMEOUT_MS)}


def explain_refusal(place: str, error: Exception) -> ServerUnavailableError:
    """Return the error for an attempt to connect that failed: one line, with the server's words."""
    reason = str(error) or type(error).__name__
    return ServerUnavailableError(
        f"PostgreSQL at {place} cannot be used: {reason} (check ORCHESTRATOR_DATABASE_URL and that it runs)"
    )
