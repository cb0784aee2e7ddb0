"""Publish the messages of a stored decision: its events in order, then the next step's command."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import structlog

from orchestrator.broker import outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.coordinator.announcer import Announcer
from orchestrator.db.processes.outbox import Mark
from orchestrator.db.session import is_connection_error
from orchestrator.errors import PublishError, RefusedError, UnroutableError
from orchestrator.messages import Advanced, NextStep
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

REMEMBERED = 20_000
"""The most processes whose confirmed events are remembered until their commands should have been claimed."""


class Dispatcher:
    """Publishes step commands, and before each the events that precede it.

    The command says up to which log entry the events are confirmed, and its claim stores that. Events that the broker does not
    confirm do not delay the command: they are marked in the rows, and the backlog publishes them.
    """

    def __init__(self, publisher: Publisher, announcer: Announcer) -> None:
        self._publisher = publisher
        self._announcer = announcer
        self._confirmed: dict[UUID, int] = {}
        self.paused = False
        """Whether the engine was paused in the reconciler's last round; the claim refuses a command that is late."""

    async def publish(self, message: Advanced, *, is_repeated: bool = False) -> bool:
        """Publish events and the next command, and wait for the broker's confirms.

        A command that the broker refuses is no error, because it concerns this process only: its row makes it due.

        Args:
            is_repeated: whether the command was published before and may be again. Then confirmed events are recorded, so that
                they are not repeated with each command.

        Returns:
            Whether a queue has taken the command.

        Raises:
            PublishError: no answer from the broker; the reconciler publishes the command again.
            a connection error: events were not confirmed, and the database is unreachable, so that this is not recorded.
        """
        confirmed = await self._announcer.announce(message)
        is_taken = False
        if message.next is not None and not self.paused:
            is_taken = await self._publish_command(message, message.next, confirmed)
        await self._announcer.record(message, confirmed, is_claimed_next=is_taken and not is_repeated)
        if is_taken and confirmed > message.announced:
            self._remember(message.process_id, confirmed)
        return is_taken

    def record_confirmed(self, waiting: Iterable[UUID]) -> None:
        """Record the confirmed events of processes whose commands wait long for the claim that would record them."""
        for process_id in waiting:
            confirmed = self._confirmed.pop(process_id, None)
            if confirmed is not None:
                self._announcer.mark(process_id, Mark(confirmed))

    def _remember(self, process_id: UUID, confirmed: int) -> None:
        self._confirmed[process_id] = confirmed
        if len(self._confirmed) > REMEMBERED:
            del self._confirmed[next(iter(self._confirmed))]

    async def try_publish(self, message: Advanced) -> None:
        """Publish after a commit, without failing: the reconciler publishes what is not confirmed now."""
        try:
            await self.publish(message)
        except Exception as error:
            if not (isinstance(error, PublishError) or is_connection_error(error)):
                raise
            _log(message, error)

    async def _publish_command(self, message: Advanced, following: NextStep, announced: int) -> bool:
        """Publish the command; return whether its queue has taken it."""
        try:
            may_wait = self._announcer.may_wait(message.workflow)
            await self._publisher.publish(outgoing.step_command(message, following, announced, unread=may_wait))
        except (UnroutableError, RefusedError):
            # The publisher logs which target refuses and how often; this may concern thousands of processes.
            logger.debug("command refused", process_id=str(message.process_id), queue=following.queue)
            return False
        return True


def _log(message: Advanced, error: Exception) -> None:
    logger.warning(
        "not published; the reconciler publishes it when it is due",
        process_id=str(message.process_id),
        workflow=message.workflow,
        step=None if message.next is None else message.next.step,
        error=format_message(error),
    )
