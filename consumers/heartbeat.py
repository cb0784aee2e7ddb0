"""Record that a consumer is alive, and read its claims from the database."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from orchestrator.db.consumers import ConsumerFacts, record_heartbeat, remove_consumer
from orchestrator.db.processes.claims import list_claim_times
from orchestrator.db.session import CONNECTION_ERRORS, DriverPool
from orchestrator.registry import Abilities
from orchestrator.stopping import wait_or_stop
from orchestrator.text import format_message

logger = structlog.get_logger(__name__)

Claims = dict[UUID, datetime]
"""The processes that this consumer has claimed, and when by the database's clock."""


class Heartbeat:
    """The consumer's row in the table ``consumers``.

    Args:
        interval: seconds between two beats.
        presumed_dead_after: seconds after which others may presume this consumer dead, and after which a beat is cancelled.
    """

    def __init__(
        self,
        pool: DriverPool,
        queues: Sequence[str],
        concurrency: int,
        abilities: Abilities,
        *,
        interval: float,
        presumed_dead_after: float,
    ) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._facts = ConsumerFacts(uuid4(), name, tuple(queues), concurrency, interval, presumed_dead_after, abilities)
        self._pool = pool
        self._interval = interval
        self._timeout = presumed_dead_after
        self._stopping = asyncio.Event()
        self._last: datetime | None = None

    @property
    def consumer_id(self) -> UUID:
        """The key of the row."""
        return self._facts.consumer_id

    @property
    def name(self) -> str:
        """What people call this consumer: host and process."""
        return self._facts.name

    async def register(self) -> datetime:
        """Write the row, without which no step can be claimed; return the database's time."""
        now = await record_heartbeat(self._pool, self._facts)
        if self._last is not None:
            _report_lateness(now - self._last, self._facts)
        self._last = now
        return now

    async def run(self, on_beat: Callable[[datetime, Claims], Awaitable[None]]) -> None:
        """Beat until :meth:`stop`; after each beat call ``on_beat`` with the database's time and this consumer's claims there."""
        comparing: asyncio.Task[None] | None = None
        try:
            while not self._stopping.is_set():
                if await wait_or_stop(self._interval, self._stopping):
                    return
                found = await self._beat()
                if comparing is not None and comparing.done():
                    comparing.result()
                    comparing = None
                # In a task of its own, because beats must not wait: a released claim is published, and the broker may be down.
                if found is not None and comparing is None:
                    comparing = asyncio.create_task(_call(on_beat, *found))
        finally:
            if comparing is not None:
                comparing.cancel()
                await asyncio.wait({comparing})

    async def _beat(self) -> tuple[datetime, Claims] | None:
        try:
            async with asyncio.timeout(self._timeout):
                now = await self.register()
                return now, await list_claim_times(self._pool, self.consumer_id)
        except CONNECTION_ERRORS as error:
            logger.warning("heartbeat failed", error=format_message(error))
            return None

    async def stop(self) -> None:
        """Stop beating and remove the row."""
        self._stopping.set()
        try:
            async with asyncio.timeout(self._timeout):
                await remove_consumer(self._pool, self.consumer_id)
        except CONNECTION_ERRORS as error:
            logger.warning("consumer row not removed", error=format_message(error))


def _report_lateness(gap: timedelta, facts: ConsumerFacts) -> None:
    """Log a beat that came late, by the database's clock, which goes on while this machine is frozen."""
    seconds = gap.total_seconds()
    if seconds <= (facts.heartbeat_interval + facts.presumed_dead_after) / 2:
        return
    logger.warning(
        "heartbeat was late"
        if seconds <= facts.presumed_dead_after
        else "heartbeat was late: others may have given our steps away",
        seconds=round(seconds, 1),
        heartbeat_interval=facts.heartbeat_interval,
        presumed_dead_after=facts.presumed_dead_after,
    )


async def _call(on_beat: Callable[[datetime, Claims], Awaitable[None]], now: datetime, claims: Claims) -> None:
    try:
        await on_beat(now, claims)
    except CONNECTION_ERRORS as error:
        logger.warning("claims not compared", error=format_message(error))
