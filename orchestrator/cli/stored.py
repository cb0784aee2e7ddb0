"""Read a process in the database, for those who follow it."""

from __future__ import annotations

import asyncio
from uuid import UUID

from orchestrator.cli.context import CliContext
from orchestrator.cli.explaining import explain_in_words
from orchestrator.cli.output import clean
from orchestrator.db.callbacks import CallbackProgress, read_progress
from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.db.processes.queries import read_log, read_process
from orchestrator.db.session import Database, is_connection_error
from orchestrator.engine.log import LogEntry
from orchestrator.errors import OrchestratorError
from orchestrator.operations.explanation import Explanation
from orchestrator.types import JSON

POLL_INTERVAL = 0.2
"""Seconds between two polls, which are two indexed reads each."""


class StoredProcess:
    """A process in the database."""

    server = "PostgreSQL"

    def __init__(self, context: CliContext, database: Database, process_id: UUID) -> None:
        self._context = context
        self._database = database
        self._process_id = process_id

    async def read(self, known: int) -> tuple[ProcessSummary, list[LogEntry]]:
        """Return the process, and the entries of its log after number ``known``."""
        async with self._database.transaction() as session:
            process = await read_process(session, self._process_id)
            new = await read_log(session, self._process_id, after=known) if process.sequence > known else []
        return process, new

    async def wait(self) -> None:
        """Wait for the time between two polls."""
        await asyncio.sleep(POLL_INTERVAL)

    async def explain(self) -> Explanation:
        """Return why the process does not go on."""
        return await explain_in_words(self._context, self._process_id)

    async def read_form(self) -> JSON:
        """Return the form that the process waits for, if this program knows its workflow."""
        return await read_form(self._context, self._database, self._process_id)

    async def read_callback(self) -> CallbackProgress | None:
        """Return what is known of the callback that the process waits for."""
        async with self._database.transaction() as session:
            return await read_progress(session, self._process_id)

    def is_outage(self, error: Exception) -> bool:
        """Return whether an error means that PostgreSQL is away."""
        return is_connection_error(error)


async def read_form(context: CliContext, database: Database, process_id: UUID) -> JSON:
    """Return the form that a suspended process waits for, if this program knows its workflow."""
    from orchestrator.services.control import input_form

    try:
        context.load_workflows()
        async with database.transaction() as session:
            return await input_form(session, process_id)
    except OrchestratorError as error:
        context.output.complain(f"note: the form cannot be shown: {clean(error)}")
        return None
