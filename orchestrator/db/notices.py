"""Changes that have no event: PostgreSQL notifies every program that listens, once the transaction has committed.

Only for what is rare: commits that notify wait for each other, so a step never does. Most notices come from triggers, which
the migrations 0014 and 0019 make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database, Driver

_CHANNEL = "orchestrator"
_NOTIFY = text(f"SELECT pg_notify('{_CHANNEL}', :payload)")

CHECK_EVERY = 30.0
"""Seconds between two checks whether a silent connection still works: nothing else is sent on it."""
CHECK_PATIENCE = 10.0


class Change(StrEnum):
    """What has changed: the first word of a notification."""

    ENGINE = "engine"
    """It was paused or unpaused."""
    PRODUCTS = "products"
    CONSUMERS = "consumers"
    """One has started or gone."""
    PROCESSES = "processes"
    """Processes were deleted, or something of them changed that is not in their log."""
    SUBSCRIPTIONS = "subscriptions"
    """One was changed by a person, not by a process."""
    SCHEDULES = "schedules"
    """One was added, changed or removed, or a slot was settled."""


@dataclass(frozen=True, slots=True)
class Notice:
    """That something has changed, and of which object if it is one."""

    change: Change
    object_id: UUID | None = None

    def __str__(self) -> str:
        return self.change.value if self.object_id is None else f"{self.change.value} {self.object_id}"

    @classmethod
    def parse(cls, payload: str) -> Notice | None:
        """Read a notification; ``None`` for what this version does not know."""
        word, _, object_id = payload.partition(" ")
        try:
            return cls(Change(word), UUID(object_id) if object_id else None)
        except ValueError:
            return None


async def notify(session: AsyncSession, notice: Notice) -> None:
    """Notify all programs that listen when the session's transaction commits; not for the hot path."""
    await session.execute(_NOTIFY, {"payload": str(notice)})


async def listen(
    database: Database, receive: Callable[[Notice], None], connected: Callable[[], None], stopping: asyncio.Event
) -> None:
    """Call ``receive`` for each notice until the connection is lost or ``stopping`` is set.

    Args:
        connected: called when nothing is missed from here on.

    Raises:
        a connection error: the database is away.
    """
    lost = asyncio.Event()

    def take(_: object, __: int, ___: str, payload: object) -> None:
        notice = Notice.parse(str(payload))
        if notice is not None:
            receive(notice)

    connection = await database.connect()
    try:
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(_CHANNEL, take)
        connected()
        while not stopping.is_set() and not lost.is_set():
            await _wait(lost, stopping)
            await _check(connection, lost, stopping)
    finally:
        connection.terminate()


async def _wait(lost: asyncio.Event, stopping: asyncio.Event) -> None:
    waiting = [asyncio.create_task(one.wait()) for one in (lost, stopping)]
    try:
        await asyncio.wait(waiting, timeout=CHECK_EVERY, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _check(connection: Driver, lost: asyncio.Event, stopping: asyncio.Event) -> None:
    if not lost.is_set() and not stopping.is_set():
        async with asyncio.timeout(CHECK_PATIENCE):
            await connection.execute("SELECT")
