"""Plain connections, opened without SQLAlchemy: its import takes longer than everything else that a short command does.

A database may be several servers, a primary and its standbys. Every connection of the engine is opened by a :class:`Hosts`,
which finds the server that can be written to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

import asyncpg

from orchestrator.db.bounds import bound_silence
from orchestrator.diagnostics import mark_own
from orchestrator.errors import ServerUnavailableError
from orchestrator.hosts import hide_password, host_of, split_hosts
from orchestrator.settings import Settings
from orchestrator.sockets import notice_loss
from orchestrator.text import format_message

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    Connection = asyncpg.Connection[asyncpg.Record]

STATEMENT_TIMEOUT_MS = 30_000
"""For the engine's own statements, which take milliseconds: after that something is wrong, and the caller tries again."""

SILENT_AFTER = 10.0
"""Seconds after which a server that is not heard of counts as gone: what ORCHESTRATOR_PRESUMED_DEAD_AFTER is by default."""

SESSION = {"jit": "off", "default_transaction_isolation": "read committed"}
"""Of every connection. Statements of milliseconds are not worth compiling; and locks are waited for and then looked at again,
which a database whose default is stricter would answer with serialization failures."""

OWN_SESSION = {**SESSION, "statement_timeout": str(STATEMENT_TIMEOUT_MS)}
"""Of connections for the engine's own statements."""

POOL_SESSION = {**OWN_SESSION, "random_page_cost": "0.1"}
"""Of the small pool's, which look up rows by their keys. By PostgreSQL's own costs a table of a few pages is better read as a
whole, and a plan from that time is kept when the table grows, until its statistics are renewed: a minute later, or more."""

_PLAIN_URL = re.compile(
    r"postgresql\+asyncpg://((?P<user>[^:/?#@]+)(:(?P<password>[^:/?#@]*))?@)?"
    r"(?P<host>[A-Za-z0-9.-]+)(:(?P<port>[0-9]+))?/(?P<database>[A-Za-z0-9_.-]+)"
)

_NEXT_HOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""A server that answers so cannot be used now; another one may. ``OSError`` includes a timeout."""


class Hosts:
    """The servers of one database. The one that could be written to last is tried first.

    Args:
        options: for each server the arguments of ``asyncpg.connect``, by its name for people.
        timeout: seconds that each server may take to answer.
        silent_after: seconds after which a server that is not heard of counts as gone.
    """

    def __init__(
        self, options: Sequence[tuple[str, Mapping[str, Any]]], timeout: float, silent_after: float = SILENT_AFTER
    ) -> None:
        self._options = list(options)
        self._timeout = timeout
        self._silent_after = silent_after
        self._bounds = bound_silence(silent_after)
        self._first = 0

    @property
    def patience(self) -> float:
        """Seconds in which a connection is open or has failed."""
        return self._timeout * len(self._options) + 1

    @property
    def place(self) -> str:
        """Host and port of the server that could be written to last."""
        return self._options[self._first][0]

    async def connect(self, application_name: str, session: Mapping[str, str]) -> Any:
        """Connect to the first server that can be written to.

        The URL's ``target_session_attrs`` may ask for another kind, as in libpq.

        Args:
            session: settings of the session, which are set by statements: of the parameters that a client may send with its
                login, pgbouncer refuses all but a few (https://www.pgbouncer.org/config.html#ignore_startup_parameters).

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: none can be used. With several servers it is one
                ``ConnectionError``, which says what each has answered.
        """
        failures: list[tuple[str, Exception]] = []
        for number in range(len(self._options)):
            index = (self._first + number) % len(self._options)
            place, options = self._options[index]
            try:
                connection = await self._connect(options, application_name, session)
            except _NEXT_HOST as error:
                failures.append((place, error))
            else:
                self._first = index
                return connection
        reasons = "; ".join(f"{place}: {describe(one)}" for place, one in failures)
        failure: Exception = failures[0][1]
        if len(failures) > 1:
            failure = ConnectionError(reasons)
            failure.__cause__ = ExceptionGroup("one for each server", [one for _, one in failures])
        mark_own(failure)
        raise failure

    async def _connect(self, options: Mapping[str, Any], application_name: str, session: Mapping[str, str]) -> Any:
        wanted = options.get("target_session_attrs", "read-write")
        names = {"application_name": application_name}
        arguments = {**options, "target_session_attrs": wanted, "timeout": self._timeout, "server_settings": names}
        try:
            async with asyncio.timeout(self._timeout):
                connection = await asyncpg.connect(**arguments)
                try:
                    transport = connection._transport  # noqa: SLF001 - nothing public leads to the socket
                    notice_loss(transport.get_extra_info("socket"), self._silent_after)
                    settings = {**self._bounds, **session}
                    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
                except BaseException:
                    connection.terminate()
                    raise
                return connection
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ConnectionError(f"the server is not {wanted}: is it a standby?") from error
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {self._timeout:g} s") from error


def has_answered(error: BaseException) -> bool:
    """Return whether a server has refused a connection in its own words, so that it is there."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return any(isinstance(one, asyncpg.PostgresError) for one in cause.exceptions)
    return isinstance(error, asyncpg.PostgresError) or isinstance(cause, asyncpg.TargetServerAttributeNotMatched)


def is_plain(settings: Settings) -> bool:
    """Return whether the database's URL has no options and nothing else that only SQLAlchemy reads rightly."""
    return all(_PLAIN_URL.fullmatch(url) for url in split_hosts(settings.database_url.get_secret_value()))


@asynccontextmanager
async def open_connection(settings: Settings, application_name: str) -> AsyncIterator[Connection]:
    """Open a connection for the engine's own statements, by a URL that :func:`is_plain`.

    Raises:
        ServerUnavailableError: PostgreSQL does not answer or refuses the connection.
    """
    url = settings.database_url.get_secret_value()
    options = [(host_of(one), _read_plain(one)) for one in split_hosts(url)]
    hosts = Hosts(options, settings.connect_timeout, settings.presumed_dead_after)
    try:
        async with asyncio.timeout(hosts.patience):
            connection = await hosts.connect(application_name, OWN_SESSION)
    except _NEXT_HOST as error:
        raise explain_refusal(url, error) from error
    try:
        yield connection
    except Exception as error:
        mark_own(error)
        raise
    finally:
        await connection.close(timeout=settings.connect_timeout)


def explain_refusal(url: str, error: Exception) -> ServerUnavailableError:
    """Return the error for an attempt to connect that failed: one line, with the servers' words."""
    place = hide_password(url).replace("postgresql+asyncpg://", "postgresql://")
    return ServerUnavailableError(
        f"PostgreSQL at {place} cannot be used: {describe(error)} (check ORCHESTRATOR_DATABASE_URL and that it runs)"
    )


def describe(error: Exception) -> str:
    """Return the words of an error on one line, or its class if it has none."""
    return " ".join(format_message(error).split())


def read_url(url: URL) -> dict[str, Any]:
    """Return the arguments of ``asyncpg.connect`` for a URL; its options are libpq's, which asyncpg reads in a URL only."""
    options = {("sslmode" if name == "ssl" else name): value for name, value in url.query.items()}
    return {
        "dsn": f"postgresql:///?{urlencode(options)}" if options else None,
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": url.database,
        "target_session_attrs": options.get("target_session_attrs", "read-write"),
    }


def _read_plain(url: str) -> dict[str, Any]:
    found = _PLAIN_URL.fullmatch(url)
    assert found is not None, "the URL is not plain"  # noqa: S101 - a programming error, not a user's
    user, password, host, port, database = found.group("user", "password", "host", "port", "database")
    return {
        "host": host,
        "port": None if port is None else int(port),
        "user": None if user is None else unquote(user),
        "password": None if password is None else unquote(password),
        "database": database,
    }
