"""Publish the events that the broker has not confirmed, from the rows, until it does.

The backlog consists of marks in the database, of which a round takes a few. So a queue that stays full costs neither memory nor
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from orchestrator.coordinator.announcer import Announcer
from orchestrator.db.processes.outbox import Behind, Mark, list_workflows_behind, take_behind
from orchestrator.db.session import Database, is_connection_error
from orchestrator.outage import Outage
from orchestrator.services.results import read_announcement
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

BATCH = 20
"""The most processes of one workflow to take in one round."""

AT_ONCE = 8
"""Processes whose events are published at the same time, each one's in order."""

LEASE = 10.0
"""Seconds for which a process is taken; if its coordinator dies, or its row cannot be read, it is taken again afterwards."""

SHORTEST, LONGEST = 0.1, 10.0
"""Seconds between two rounds while the broker refuses events; the pause doubles as long as it accepts none."""


class Backlog:
    """Publishes the events left in the rows, every ``interval`` seconds. Any number of backlogs may run side by side."""

    def __init__(self, database: Database, announcer: Announcer, *, interval: float) -> None:
        self._database = database
        self._announcer = announcer
        self._interval = interval
        self._pause = SHORTEST
        self._outage = Outage("the database is away; trying again", "the database answers again", part="backlog")

    async def run(self, stopping: asyncio.Event) -> None:
        """Run rounds until ``stopping`` is set."""
        while not stopping.is_set():
            seconds = self._interval
            try:
                seconds = await self.run_once()
                self._outage.over()
            except Exception as error:
                if is_connection_error(error):
                    self._outage.report(error)
                else:
                    # A bug in the engine, in one round.
                    logger.exception("backlog round failed")
            await wait_or_stop(seconds, stopping)

    async def run_once(self) -> float:
        """Run one round; return the seconds until the next."""
        announcer, pool = self._announcer, self._database.pool
        announcer.report_end()
        if announcer.refused:
            announcer.keep_refused(await list_workflows_behind(pool))
        taken = await take_behind(pool, sorted(announcer.refused), BATCH, LEASE)
        workflows: dict[str, list[Behind]] = {}
        for one in taken:
            workflows.setdefault(one.workflow, []).append(one)
        gate = asyncio.Semaphore(AT_ONCE)
        progress = await asyncio.gather(*(self._announce_all(one, gate) for one in workflows.values()))
        await announcer.write_marks()
        if announcer.refused and not any(progress):
            self._pause = min(2 * self._pause, LONGEST)
            return self._pause
        self._pause = SHORTEST
        if announcer.refused:
            return SHORTEST
        return 0.0 if any(progress) else self._interval

    async def _announce_all(self, taken: Sequence[Behind], gate: asyncio.Semaphore) -> bool:
        """Publish the events of these processes of one workflow, the first one's first; return whether any was confirmed.

        If the broker refuses one, the others are not tried: it would refuse theirs as well.
        """
        probe, *others = taken
        progress = await self._announce(probe, gate, probe=True)
        return any([progress, *await asyncio.gather(*(self._announce(one, gate) for one in others))])

    async def _announce(self, one: Behind, gate: asyncio.Semaphore, *, probe: bool = False) -> bool:
        async with gate:
            if not probe and one.workflow in self._announcer.refused:
                self._announcer.mark(one.process_id, Mark(0, self._pause))
                return False
            try:
                async with self._database.transaction() as session:
                    message = await read_announcement(session, one.process_id)
            except Exception as error:
                if is_connection_error(error):
                    raise
                # For example a row that cannot be read. The others' events are published all the same.
                logger.exception("events not published", process_id=str(one.process_id), workflow=one.workflow)
                return False
            if message is None:
                return False
            confirmed = await self._announcer.announce(message, probe=probe)
            self._announcer.mark(one.process_id, Mark(confirmed, self._pause))
            return confirmed > message.announced
