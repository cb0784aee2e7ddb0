"""Move dead letters from their queue into the table, where they can be listed, replayed and discarded.

A copy without any token goes to the queue ``orchestrator.dead``, for people who look at RabbitMQ's management UI. A letter that
cannot be stored stays in its queue. It must never be dead-lettered itself, which would repeat for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from orchestrator.broker.dead_letters import copy, read_letter
from orchestrator.broker.deliveries import DeclinedError
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.db.dead_letters import count_open, forget_closed
from orchestrator.db.session import Database, is_connection_error
from orchestrator.errors import PublishError
from orchestrator.messages import DeadLetter
from orchestrator.operations.dead_letters import keep

logger = structlog.get_logger(__name__)

PREFETCH = 5
"""Letters in progress at once. They may be as large as the broker lets messages be."""

MAX_LETTERS, MAX_BYTES = 50_000, 512 * 1024 * 1024
"""Open letters, and the bytes of their bodies, beyond which letters stay in the queue: a flood must not fill PostgreSQL's disk.
The broker holds a sender up when its own is full."""

CHECK_EVERY = 100
"""Letters after which the room is checked again; it is also checked after some seconds."""

CHECK_AFTER = 5.0
PAUSE = 30.0
"""Seconds until a letter is tried again that could not be stored, for lack of room or another reason."""

FORGET_AFTER = 30.0
"""Days after which a letter that was replayed or discarded is deleted."""


class LetterKeeper:
    """The handler of the queue of dead letters.

    Args:
        put_back: called when a stored letter is one that coordinators put back themselves; people need no copy of it.
    """

    def __init__(self, database: Database, publisher: Publisher, put_back: Callable[[], None] | None = None) -> None:
        self._database = database
        self._publisher = publisher
        self._put_back = put_back
        self._checked_at = float("-inf")
        self._until_check = 0
        self._has_room = True

    async def take(self, delivery: Delivery) -> None:
        """Store a letter. While the database is unreachable it is kept and tried again, like every message.

        Raises:
            DeclinedError: it stays in the queue for now.
        """
        try:
            await self._check()
            if not self._has_room:
                raise DeclinedError(PAUSE)
            letter = read_letter(delivery)
            async with self._database.transaction() as session:
                letter_id = await keep(session, letter, is_redelivered=delivery.redelivered)
            if letter.unhandled and self._put_back is not None:
                self._put_back()
            else:
                await self._show(replace(letter, letter_id=letter_id or letter.letter_id))
        except DeclinedError:
            raise
        except Exception as error:
            if is_connection_error(error):
                raise
            logger.exception("dead letter not stored; it stays in its queue", message_id=delivery.message_id)
            raise DeclinedError(PAUSE) from error

    async def _show(self, letter: DeadLetter) -> None:
        try:
            await self._publisher.publish(copy(letter))
        except PublishError as error:
            # A policy may have limited the queue, or an operator deleted it: the letter itself is kept.
            logger.info("dead letter not copied to orchestrator.dead", error=str(error))

    async def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        self._until_check -= 1
        if self._until_check > 0 and now - self._checked_at < CHECK_AFTER:
            return
        self._until_check, self._checked_at = CHECK_EVERY, now
        async with self._database.transaction() as session:
            await forget_closed(session, FORGET_AFTER)
            found = await count_open(session)
        self._has_room = found.letters < MAX_LETTERS and found.bytes < MAX_BYTES
        if not self._has_room:
            logger.error(
                "no room for more dead letters; they stay in their queue until others are replayed or discarded",
                letters=found.letters,
                bytes=found.bytes,
            )
