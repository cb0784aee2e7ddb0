"""Put back messages that the broker dead-lettered although no coordinator had handled them.

A command or answer that cannot be stored, because PostgreSQL is unreachable, comes back with each broken connection to the
broker, which dead-letters it after :data:`~orchestrator.broker.topology.DELIVERY_LIMIT` times. That says nothing about the
message. So it is sent again as soon as the database answers. A message that kills each program that handles it must not go on
for ever. Therefore the letter's row counts how often the message was begun, and not how often it was delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import structlog

from orchestrator.broker.dead_letters import copy, find_replayed
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Queues
from orchestrator.db.dead_letters import read_letter
from orchestrator.db.session import Database, is_connection_error
from orchestrator.db.unhandled_letters import leave_to_people, list_unhandled, note_begun
from orchestrator.errors import ConflictError, MessageError, OrchestratorError, PublishError
from orchestrator.operations.dead_letters import send_again
from orchestrator.settings import Limits
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message, sanitise

logger = structlog.get_logger(__name__)

MAX_BEGUN = 3
"""How many programs may die while they handle a message that was put back."""

BATCH, AT_ONCE = 100, 5
"""Letters of one round, and how many of them are sent at once."""

MAX_REMEMBERED = 10_000
"""The most letters whose begun messages this program remembers."""

AUTHOR = "SYSTEM"
"""The user in the record of such a replay."""


class UnhandledLetters:
    """Sends such messages again. Any number of coordinators may do so side by side.

    Args:
        interval: seconds between two searches for letters that another coordinator left, or the broker refused.
    """

    def __init__(self, database: Database, publisher: Publisher, limits: Limits, *, interval: float) -> None:
        self._database = database
        self._publisher = publisher
        self._limits = limits
        self._interval = interval
        self._begun: dict[UUID, None] = {}
        self.kept = asyncio.Event()
        """To be set when such a letter has been stored."""

    async def admit(self, delivery: Delivery) -> None:
        """Record that the handling of a message that was put back begins.

        Raises:
            MessageError: too many programs have begun it and died before its end.
        """
        letter_id = find_replayed(delivery)
        if letter_id is not None and not await self._begin(letter_id):
            raise MessageError(_deadly(delivery.queue))

    async def run(self, stopping: asyncio.Event) -> None:
        """Put letters back as they come, until ``stopping`` is set."""
        while not stopping.is_set():
            self.kept.clear()
            try:
                if await self.run_once() == BATCH:
                    continue
            except PublishError as error:
                logger.warning("messages that came back too often are not put back yet", error=str(error))
            except Exception as error:
                if not is_connection_error(error):
                    # A bug in the engine, in one round.
                    logger.exception("messages that came back too often are not put back")
            await self._wait(stopping)

    async def run_once(self) -> int:
        """Put back some letters; return how many there were.

        Raises:
            PublishError: the broker does not accept them now.
        """
        found = await list_unhandled(self._database.pool, BATCH)
        sent = await self._send(found)
        if sent:
            logger.warning(
                "messages put back that the broker had given up before a coordinator could handle them", messages=sent
            )
        return len(found)

    async def _send(self, letter_ids: Sequence[UUID]) -> int:
        few = asyncio.Semaphore(AT_ONCE)
        errors: list[Exception] = []
        sent = 0

        async def send(letter_id: UUID) -> None:
            nonlocal sent
            async with few:
                if errors:
                    return
                try:
                    sent += await self._put_back(letter_id)
                except Exception as error:
                    errors.append(error)

        await asyncio.gather(*map(send, letter_ids))
        if errors:
            raise errors[0]
        return sent

    async def _put_back(self, letter_id: UUID) -> bool:
        async with self._database.transaction() as session:
            letter = (await read_letter(session, letter_id)).letter
        if letter.queue == Queues.CALLBACKS:
            # It is handled at once, here, because its token is not kept.
            if letter.token_hash is None:
                await self._leave(letter_id, "the callback has no correlation_id")
                return False
            if not await self._begin(letter_id):
                await self._leave(letter_id, _deadly(letter.queue))
                return False
        try:
            await send_again(self._database, self._publisher, letter_id, AUTHOR, self._limits)
        except PublishError:
            raise
        except OrchestratorError as error:
            if type(error) is ConflictError:
                return False  # another program is doing it, or has done it
            await self._leave(letter_id, f"{type(error).__name__}: {error}")
            return False
        return True

    async def _begin(self, letter_id: UUID) -> bool:
        """Record that this program begins a message; return whether it may. A living program was not killed by it."""
        if letter_id in self._begun:
            return True
        async with self._database.transaction() as session:
            times = await note_begun(session, letter_id)
        self._begun[letter_id] = None
        if len(self._begun) > MAX_REMEMBERED:
            del self._begun[next(iter(self._begun))]
        return times <= MAX_BEGUN

    async def _leave(self, letter_id: UUID, reason: str) -> None:
        async with self._database.transaction() as session:
            await leave_to_people(session, letter_id, sanitise(reason))
            letter = (await read_letter(session, letter_id)).letter
        logger.warning("dead letter", queue=letter.queue, reason=letter.reason, letter_id=str(letter_id))
        try:
            await self._publisher.publish(copy(letter))
        except PublishError as error:
            logger.info("dead letter not copied to orchestrator.dead", error=format_message(error))

    async def _wait(self, stopping: asyncio.Event) -> None:
        waiting = asyncio.create_task(self.kept.wait())
        try:
            stop = asyncio.create_task(wait_or_stop(self._interval, stopping))
            await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
        finally:
            waiting.cancel()


def _deadly(queue: str) -> str:
    return (
        f"it came back to {queue} too often, and of the programs that have begun it since then {MAX_BEGUN} did not live to"
        " its end"
    )
