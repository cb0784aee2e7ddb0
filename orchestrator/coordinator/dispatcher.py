"""Publish what a stored decision requires: its events in order, then the next step's command."""

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
from orchestrator.services.results import build_events
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

FLUSH_INTERVAL = 0.2
"""Seconds for which the marks of processes at rest are collected, to be written in one statement. A mark is the last log entry
whose event was published."""


class Dispatcher:
    """Publishes all step commands and events.

    Events of one process stay in order: all events up to a step's command are published before it, and the step's result,
    which later events come from, cannot exist before its command.
    """

    def __init__(self, publisher: Publisher, pool: DriverPool) -> None:
        self._publisher = publisher
        self._pool = pool
        self._marks: dict[UUID, int] = {}
        self._has_marks = asyncio.Event()
        self.paused = False
        """Whether the engine was paused in the reconciler's last round; the claim refuses a command that is late."""

    async def publish(self, message: Advanced) -> None:
        """Publish events and the next command, and wait for the broker's confirms.

        Raises:
            PublishError: one of them was not confirmed; the reconciler publishes it again.
        """
        messages = [outgoing.event(key, event) for key, event in build_events(message)]
        if message.next is not None and not self.paused:
            messages.append(outgoing.step_command(message, message.next))
        # Tasks start in order and write to one channel, so the broker receives the messages in this order.
        await asyncio.gather(*(self._publisher.publish(one) for one in messages))
        if message.next is None:
            self._marks[message.process_id] = max(message.sequence, self._marks.get(message.process_id, 0))
            self._has_marks.set()

    async def try_publish(self, message: Advanced) -> None:
        """Publish after a commit, when the caller must not fail: the reconciler publishes what is not confirmed now."""
        try:
            await self.publish(message)
        except PublishError as error:
            logger.warning(
                "not published; the reconciler publishes it when it is due",
                process_id=str(message.process_id),
                workflow=message.workflow,
                step=None if message.next is None else message.next.step,
                error=str(error),
            )

    async def run(self, stopping: asyncio.Event) -> None:
        """Write the collected marks periodically until ``stopping`` is set."""
        while not stopping.is_set():
            waiting = [asyncio.create_task(self._has_marks.wait()), asyncio.create_task(stopping.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            await wait_or_stop(FLUSH_INTERVAL, stopping)
            await self.flush()

    async def flush(self) -> None:
        """Write the collected marks; keep them if that fails. If they are lost, events are published twice."""
        self._has_marks.clear()
        marks, self._marks = self._marks, {}
        if not marks:
            return
        try:
            await mark_announced(self._pool, marks)
        except Exception as error:
            # Whatever the database refuses must not end the coordinator. The marks are tried again together with the next ones.
            for process_id, sequence in marks.items():
                self._marks[process_id] = max(sequence, self._marks.get(process_id, 0))
            text = format_message(error)
            if is_connection_error(error):
                logger.warning("marks not written yet; events may be published twice", error=text)
            else:
                logger.exception("marks not written yet; events may be published twice")
