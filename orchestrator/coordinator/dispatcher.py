"""Publishes what a decision calls for: its events in order, then the next step's command."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from orchestrator.broker import outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.db.processes.outbox import mark_announced
from orchestrator.db.session import DriverPool, is_connection_error
from orchestrator.errors import PublishError
from orchestrator.messages import Advanced
from orchestrator.services.results import events_of
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds for which published-up-to marks of resting processes are collected, to be written in one statement."""


class Dispatcher:
    """The one place from which step commands and events are published.

    Events of one process stay in order: whoever publishes a step's command has first published all events up to it, and
    the step's result, from which later events come, cannot exist before its command.
    """

    def __init__(self, publisher: Publisher, pool: DriverPool) -> None:
        self._publisher = publisher
        self._pool = pool
        self._announced: dict[UUID, int] = {}
        self._work = asyncio.Event()
        self.paused = False
        """What the reconciler last saw; a command published by mistake is refused by the claim."""

    async def act(self, message: Advanced) -> None:
        """Publish events and the next command, and wait for the broker's confirms.

        Raises:
            PublishError: something was not taken; the rows bring it back.
        """
        messages = [outgoing.event(key, event) for key, event in events_of(message)]
        if message.next is not None and not self.paused:
            messages.append(outgoing.step_command(message, message.next))
        # Tasks start in order and write to one channel, so the broker receives the messages in this order.
        await asyncio.gather(*(self._publisher.publish(one) for one in messages))
        if message.next is None:
            self._announced[message.process_id] = max(message.sequence, self._announced.get(message.process_id, 0))
            self._work.set()

    async def act_quietly(self, message: Advanced) -> None:
        """As :meth:`act`, for callers that have committed and must not fail: what is not taken now is found again."""
        try:
            await self.act(message)
        except PublishError as error:
            logger.warning(
                "not published; found again when due",
                process_id=str(message.process_id),
                workflow=message.workflow,
                step=None if message.next is None else message.next.step,
                error=str(error),
            )

    async def run(self, stopping: asyncio.Event) -> None:
        """Write the collected marks until ``stopping`` is set, and once more at the end."""
        while not stopping.is_set():
            waiting = [asyncio.create_task(self._work.wait()), asyncio.create_task(stopping.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            await wait_or_stop(FLUSH_INTERVAL, stopping)
            await self.flush()

    async def flush(self) -> None:
        """Write the collected marks; keep them if that fails. Losing them only means that events are published twice."""
        self._work.clear()
        marks, self._announced = self._announced, {}
        if not marks:
            return
        try:
            await mark_announced(self._pool, marks)
        except Exception as error:
            # Whatever the database has against them: it must not end the coordinator, which serves everybody. They are tried
            # again together with the next ones.
            for process_id, sequence in marks.items():
                self._announced[process_id] = max(sequence, self._announced.get(process_id, 0))
            words = format_message(error)
            if is_connection_error(error):
                logger.warning("marks not written yet; events may be published twice", error=words)
            else:
                logger.exception("marks not written yet; events may be published twice")
