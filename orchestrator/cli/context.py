"""Provide what every command needs: settings, servers opened for one command, and errors turned into lines.

A client of a server is imported by the method that opens the server, so that commands do not pay for the other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer

from orchestrator.cli.output import Output, clean
from orchestrator.errors import ConfigurationError, FormIncompleteError, OrchestratorError, PublishError, RequestError
from orchestrator.log import Level, configure_logging
from orchestrator.settings import Limits, Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from orchestrator.broker.connection import BrokerAddress
    from orchestrator.broker.publisher import Publisher
    from orchestrator.db.session import Database, Driver
    from orchestrator.messages import Advanced

REFUSED, NEEDS_INPUT, NOT_IN_TIME, INTERRUPTED = 1, 3, 4, 130
"""Exit codes: refused or failed; of a process that is followed: it needs input, it has not ended in time; ended by Ctrl-C."""

_NOT_MIGRATED = (
    "the database is not migrated, or not up to date: run 'orchestrator db upgrade', which says so if it is this program's code"
    " that is older"
)
_PERMISSION_DENIED = "42501"


@dataclass(frozen=True, slots=True)
class CliContext:
    """A command's settings, output and servers; everything it opens is closed before the command ends."""

    settings: Settings
    output: Output

    @property
    def limits(self) -> Limits:
        """The settings that use cases need."""
        return self.settings.limits

    @property
    def address(self) -> BrokerAddress:
        """Where RabbitMQ is."""
        from orchestrator.broker.connection import BrokerAddress

        return BrokerAddress.of(self.settings, "orchestrator command line")

    @property
    def project(self) -> Path:
        """The folder of the user's own migrations."""
        return Path(self.settings.migrations)

    def load_workflows(self) -> None:
        """Import the modules of ORCHESTRATOR_WORKFLOWS.

        Raises:
            DefinitionError: one of them cannot be imported.
        """
        from orchestrator.workflows.shipped import load_workflows

        load_workflows(self.settings.workflows, shipped_schedules=self.settings.shipped_schedules)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """Open PostgreSQL, once it has answered."""
        from orchestrator.db.session import Database

        database = Database.of(self.settings, "orchestrator-cli", pool_size=2)
        try:
            await database.check()
            yield database
        finally:
            await database.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Driver]:
        """Open one plain connection to PostgreSQL, without SQLAlchemy if the URL lets it."""
        from orchestrator.db.connection import is_plain, open_connection

        if is_plain(self.settings):
            async with open_connection(self.settings, "orchestrator-cli") as connection:
                yield connection
        else:
            async with self.database() as database:
                await database.open()
                async with database.pool.acquire() as pooled:
                    yield pooled

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        """Open RabbitMQ, connected and declared. Before a commit, so that nothing is stored when RabbitMQ is away."""
        from orchestrator.broker.publisher import Publisher
        from orchestrator.broker.topology import Topology

        topology = Topology.of(self.settings.queue_type)
        publisher = Publisher(self.address, topology, self.settings.publish_timeout)
        try:
            await publisher.open()
            yield publisher
        finally:
            await publisher.close()

    async def change(
        self, database: Database, publisher: Publisher, act: Callable[[AsyncSession], Awaitable[Advanced]]
    ) -> Advanced:
        """Run a use case in a transaction of its own and, once it has committed, notify the coordinators."""
        async with database.transaction() as session:
            message = await act(session)
        await self.notify(publisher, message.process_id, message.workflow)
        return message

    async def notify(self, publisher: Publisher, process_id: UUID, workflow: str) -> None:
        """Notify the coordinators that a process has changed. The reconciler finds what is lost here."""
        from orchestrator.broker.outgoing import look

        try:
            await publisher.publish(look(process_id, workflow))
        except PublishError as error:
            self.output.complain(
                f"warning: saved, but RabbitMQ could not be notified ({clean(error)}); the reconciler publishes it within"
                " ORCHESTRATOR_REDISPATCH_AFTER"
            )


Body = Callable[[CliContext], Coroutine[Any, Any, int | None]]
"""A command's work; it returns its exit code, ``None`` for 0."""


def execute(body: Body, *, as_json: bool = False, needs_settings: bool = True) -> None:
    """Run a command's work and exit with its code. Errors that people can act on become lines on stderr.

    Args:
        needs_settings: whether the settings say where the servers are; what speaks to the API alone needs none.
    """
    output = Output(as_json=as_json)
    try:
        # Whatever a user's module prints while it is imported must not end up in the command's JSON.
        with contextlib.redirect_stdout(sys.stderr):
            settings = prepare() if needs_settings else Settings.model_construct()
            level: Level = "debug" if settings.log_level == "debug" else "warning"
            configure_logging(settings.log_format, level, settings.log_levels)
            code = asyncio.run(body(CliContext(settings, output))) or 0
        code = code if output.flush() else REFUSED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        output.discard()
        code = REFUSED
    except Exception as error:
        # Nearly anything can come out of two client libraries. What is not known to be an error of a server, of a project or
        # of the user is a defect of the engine, and keeps its traceback.
        if not refuse(output, error):
            raise
        code = REFUSED
    raise typer.Exit(code)


def prepare() -> Settings:
    """Read the settings; let user modules be imported from the current folder, too, because .env is read from there."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise ConfigurationError("the working directory does not exist any more: change to one that does") from error
    if here not in sys.path:
        sys.path.insert(0, here)
    return load_settings()


def refuse(output: Output, error: BaseException) -> bool:
    """Print an error, if it is one that people can act on; return whether it is."""
    lines = explain(error)
    if lines is None:
        return False
    for line in lines:
        output.complain(line)
    with contextlib.suppress(BrokenPipeError):
        output.document(
            {
                "error": type(error).__name__,
                "detail": lines[0],
                "reasons": error.reasons if isinstance(error, RequestError) else [],
                "form": error.form if isinstance(error, FormIncompleteError) else None,
            }
        )
    output.flush()
    return True


def explain(error: BaseException) -> list[str] | None:
    """Return the lines that explain an error to people; ``None`` for a defect of the engine, which needs its traceback."""
    if isinstance(error, BaseExceptionGroup):
        return _explain_all(error.exceptions)
    if isinstance(error, RequestError):
        text = _one_line(error)
        # A reason that is only the error's own key is for programs (--json): the text says the same to people.
        reasons = [_reason(reason) for reason in error.reasons if reason != {"key": error.key}]
        return [text, *(f"  • {reason}" for reason in reasons if reason not in text)]
    if isinstance(error, OrchestratorError):
        return [_one_line(error)]
    return _explain_foreign(error)


def _explain_foreign(error: BaseException) -> list[str] | None:
    from sqlalchemy.exc import DBAPIError

    from orchestrator.broker.connection import is_broker_outage
    from orchestrator.db.session import is_database_outage, is_not_migrated

    if is_not_migrated(error):
        return [_NOT_MIGRATED]
    cause = error.orig if isinstance(error, DBAPIError) else error
    if getattr(cause, "sqlstate", None) == _PERMISSION_DENIED:
        return [f"PostgreSQL refuses the user of ORCHESTRATOR_DATABASE_URL: {_one_line(cause)}"]
    if is_database_outage(error):
        return [f"the connection to PostgreSQL was lost: {_one_line(cause)}"]
    if is_broker_outage(error):
        return [f"the connection to RabbitMQ was lost: {_one_line(error)}"]
    return None


def _explain_all(errors: Sequence[BaseException]) -> list[str] | None:
    found: list[str] = []
    for one in errors:
        lines = explain(one)
        if lines is None:
            return None
        found.extend(line for line in lines if line not in found)
    return found


def _reason(reason: dict[str, Any]) -> str:
    if reason.get("key") == "form.invalid":
        place = ".".join(reason.get("loc", ())) or "input"
        return clean(f"{place}: {reason.get('msg', '')}")
    others = ", ".join(f"{key}={value}" for key, value in reason.items() if key != "key")
    return clean(f"{reason.get('key', 'reason')}{f' ({others})' if others else ''}")


def _one_line(error: object) -> str:
    return clean(" ".join(str(error).split()) or type(error).__name__)
