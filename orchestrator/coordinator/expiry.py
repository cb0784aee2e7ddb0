"""Measure periodically how long finished tasks have been expired, so that monitoring shows when no clean-up runs."""

from __future__ import annotations

import asyncio

import structlog

from orchestrator.coordinator.metrics import Metrics
from orchestrator.db.retention import list_expired, list_stored_workflows
from orchestrator.db.session import Database, is_connection_error
from orchestrator.services.retention import find_rules
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

INTERVAL = 60.0
"""Seconds between two measurements. Each reads one index entry for each workflow."""


class Expiry:
    """Keeps the metric about expired tasks.

    Args:
        days: how long finished tasks are kept whose workflows do not say it themselves.
    """

    def __init__(self, database: Database, metrics: Metrics, days: int) -> None:
        self._database = database
        self._metrics = metrics
        self._days = days

    async def run(self, stopping: asyncio.Event) -> None:
        """Measure until ``stopping`` is set."""
        while not stopping.is_set():
            try:
                await self.look()
            except Exception as error:
                if is_connection_error(error):
                    logger.info("expired tasks were not looked for", reason=format_message(error))
                else:
                    logger.exception("expired tasks were not looked for")
            await wait_or_stop(INTERVAL, stopping)

    async def look(self) -> None:
        """Measure once."""
        async with self._database.pool.acquire() as connection:
            found = find_rules(await list_stored_workflows(connection), self._days)
            expired = await list_expired(connection, found.rules)
        self._metrics.report_expired(max((one.expired_for for one in expired), default=0.0))
