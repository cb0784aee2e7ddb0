"""Keep the schedules that this program's code declares in the database while the program runs."""

from __future__ import annotations

import asyncio

import structlog

from orchestrator.activity import doing
from orchestrator.db.session import Database, is_connection_error
from orchestrator.outage import Outage
from orchestrator.services.schedule_reconciliation import Reconciliation
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

INTERVAL = 5.0
"""Seconds between two rounds, which show other programs that this version of the code is still in use."""


class Declarations:
    """Reconciles the declared schedules at the start, and again when the programs with newer declarations are gone."""

    def __init__(self, database: Database, reconciliations: list[Reconciliation], limits: Limits) -> None:
        self._database = database
        self._reconciliations = reconciliations
        self._limits = limits
        self._outage = Outage("the database is away; trying again", "the database answers again", part="declarations")

    async def run(self, stopping: asyncio.Event) -> None:
        """Run rounds until ``stopping`` is set."""
        while not stopping.is_set():
            try:
                with doing("the schedules that the code declares"):
                    await self.run_once()
                self._outage.over()
            except Exception as error:
                if is_connection_error(error):
                    self._outage.report(error)
                else:
                    # A bug in the engine, in one round. Nothing else must stop because of it.
                    logger.exception("declared schedules were not stored")
            await wait_or_stop(INTERVAL, stopping)

    async def run_once(self) -> None:
        """Run one round."""
        for one in self._reconciliations:
            await one.reconcile(self._database, self._limits)
