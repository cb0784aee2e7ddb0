"""Hand back the commands of steps that this consumer cannot run, for other consumers of the same queue."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from orchestrator.broker.outgoing import declined_command
from orchestrator.broker.publisher import Publisher
from orchestrator.db.readers import drop_command, find_readiness
from orchestrator.db.session import DriverPool
from orchestrator.log import log_fields
from orchestrator.messages import MAX_DECLINES, StepCommand
from orchestrator.stopping import wait_or_stop

logger = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 5.0
"""Seconds that a command is kept when it comes back to the same consumer."""

GROWTH = 1.5
"""How much longer each time. Less than two: the broker serves readers in turn, so beside one idle consumer that can run the step
every second command comes back by chance, every fourth one twice, and so on. Pauses that double would cost the unlucky ones as
much as there are commands."""

MAX_REMEMBERED = 1000
"""The most reasons that this consumer remembers to have logged as errors."""


class HandBack:
    """Publishes declined commands again at the end of their queue.

    A command goes on at once when this consumer sees it for the first time, and after a growing pause when it comes back: the
    other consumers may be busy. When no living consumer of the queue can run the step, it is dropped. The rows are the truth:
    the reconciler publishes it again when it is due, and a consumer that can run it makes it due when it registers.

    Args:
        consumer_id: the id of this consumer.
        stopping: set when the program stops, which ends pauses at once.
    """

    def __init__(
        self,
        pool: DriverPool,
        publisher: Publisher,
        consumer_id: UUID,
        *,
        stopping: asyncio.Event,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._consumer_id = consumer_id
        self._stopping = stopping
        self._kept: set[tuple[UUID, int, int]] = set()
        self._logged: set[tuple[str, str]] = set()

    @property
    def kept(self) -> int:
        """The number of commands that wait here."""
        return len(self._kept)

    async def __call__(self, command: StepCommand, queue: str, reason: str) -> None:
        """Hand a command back to ``queue``, or drop it; either way it may be acknowledged afterwards.

        Raises:
            PublishError: the broker refuses the command; it must be kept and tried again.
        """
        self._log(command, reason)
        key = (command.process_id, command.position, command.attempt)
        if key in self._kept:
            # The reconciler has published it again while the first one is kept here.
            return
        readiness = await find_readiness(self._pool, command, queue, consumer_id=self._consumer_id)
        if not readiness.is_current:
            return
        if not readiness.has_reader:
            await drop_command(self._pool, command)
            return
        seen = command.declined_by.count(self._consumer_id)
        if seen:
            self._kept.add(key)
            try:
                await wait_or_stop(min(FIRST_PAUSE * GROWTH ** (seen - 1), LONGEST_PAUSE), self._stopping)
            finally:
                # Before it is published: it may come back before the broker's confirm does.
                self._kept.discard(key)
        declined_by = (*command.declined_by, self._consumer_id)[-MAX_DECLINES:]
        await self._publisher.publish(declined_command(command.model_copy(update={"declined_by": declined_by}), queue))

    def _log(self, command: StepCommand, reason: str) -> None:
        """Log an error for each new reason; many commands may be declined for one."""
        key = (command.workflow, reason)
        log = logger.debug if key in self._logged else logger.error
        log("step not run by this consumer", reason=reason, **log_fields(command))
        if len(self._logged) < MAX_REMEMBERED:
            self._logged.add(key)
