"""Provide what every path needs: the servers and settings of the program, and transactions whose changes are published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final, TypeVar
from uuid import UUID

import structlog
from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from orchestrator.api.live import Live
from orchestrator.api.metrics import ApiMetrics
from orchestrator.api.translations import Translations
from orchestrator.api.turns import Turns
from orchestrator.broker.outgoing import Outgoing, look, step_result
from orchestrator.broker.publisher import Publisher
from orchestrator.db.processes.rows import find_workflow
from orchestrator.db.session import Database
from orchestrator.errors import PublishError
from orchestrator.messages import Advanced
from orchestrator.services.customers import Customers
from orchestrator.services.starter import Starter
from orchestrator.settings import Limits, Settings

logger = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that a request waits for a turn to call user code."""


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The servers and settings of one API program.

    Args:
        stopping: set when the program has begun to stop.

    Raises:
        ConfigurationError: a function or file that a setting names cannot be used.
    """

    settings: Settings
    database: Database
    publisher: Publisher
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    live: Live = field(init=False)
    turns: Turns = field(init=False)
    customers: Customers = field(init=False)
    translations: Translations = field(init=False)
    starter: Starter = field(init=False)
    _notifying: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "live", Live(self.database))
        object.__setattr__(self, "starter", Starter(self.database, self.limits, patience=PATIENCE))
        object.__setattr__(self, "turns", Turns(self.settings.requests_per_user))
        object.__setattr__(self, "customers", Customers.of(self.settings.customers))
        object.__setattr__(self, "translations", Translations.of(self.settings.translations))

    @property
    def limits(self) -> Limits:
        """The settings that use cases need."""
        return self.settings.limits

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that commits when the block ends. No response may be sent while it is open."""
        async with self.database.transaction() as session:
            yield session

    async def change(self, act: Callable[[AsyncSession], Awaitable[Advanced]]) -> Advanced:
        """Run a use case in a transaction of its own and, once it has committed, notify the coordinators."""
        async with self.transaction() as session:
            message = await act(session)
        self.notify(message.process_id, message.workflow)
        return message

    async def run_author_code(self, workflow: str, act: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run a use case that calls user code in a transaction of its own; see :class:`AuthorCode`.

        Args:
            workflow: whose code it is.
        """
        return await self.database.author_code.run(workflow, act, patience=PATIENCE)

    async def change_process(self, process_id: UUID, act: Callable[[AsyncSession], Awaitable[Advanced]]) -> Advanced:
        """Do as :meth:`change` does, with a use case that calls the form or callbacks of a process."""
        workflow = await find_workflow(self.database.pool, process_id)
        message = await self.run_author_code(workflow or "", act)
        self.notify(message.process_id, message.workflow)
        return message

    def notify(self, process_id: UUID, workflow: str) -> None:
        """Notify the coordinators that a process has changed, without waiting for the broker.

        While the broker is away nothing is sent: the reconciler finds the process in the database.
        """
        self._send(process_id, look(process_id, workflow))

    def notify_started(self, message: Advanced) -> None:
        """Send the coordinators what follows from a start, as :meth:`notify`.

        Nothing has happened to the process before, so they need not read from its rows what else is to be published.
        """
        self._send(message.process_id, step_result(message, None))

    async def drain(self) -> None:
        """Wait until the coordinators have been notified of everything that was committed."""
        await asyncio.gather(*self._notifying)

    def _send(self, process_id: UUID, message: Outgoing) -> None:
        self.live.wake()
        if not self.publisher.is_ready:
            logger.info("the reconciler will find the process: the broker is away", process_id=str(process_id))
            return
        task = asyncio.create_task(self._publish(process_id, message))
        self._notifying.add(task)
        task.add_done_callback(self._notifying.discard)

    async def _publish(self, process_id: UUID, message: Outgoing) -> None:
        try:
            await self.publisher.publish(message)
        except PublishError as error:
            logger.warning(
                "the reconciler will find the process: the coordinators could not be notified",
                process_id=str(process_id),
                error=str(error),
            )


def find_context(connection: HTTPConnection) -> ApiContext:
    """Return the context of the program that serves a request or a WebSocket."""
    context: ApiContext = connection.app.state.context
    return context


Context = Annotated[ApiContext, Depends(find_context)]
