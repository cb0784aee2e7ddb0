"""Find schedules that no coordinator serves, with statements of asyncpg alone: see :mod:`orchestrator.db.connection`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.db.session import Driver, DriverPool

OVERDUE_AFTER = 60.0
"""Seconds after which a schedule that is due and was not handled is overdue."""

_OVERDUE = """
SELECT name, workflow, next_slot, EXTRACT(EPOCH FROM now() - due_at)::float8 AS waited, broken
  FROM schedules
 WHERE enabled AND deleted_at IS NULL AND due_at < now() - $1::float8 * interval '1 second'
 ORDER BY due_at LIMIT $2
"""

_COUNT_OVERDUE = """
SELECT count(*) FROM schedules
 WHERE enabled AND deleted_at IS NULL AND due_at < now() - $1::float8 * interval '1 second'
"""

# Those that are overdue are listed as such.
_BROKEN = """
SELECT name, workflow, broken FROM schedules
 WHERE enabled AND deleted_at IS NULL AND broken IS NOT NULL
   AND (due_at IS NULL OR due_at >= now() - $1::float8 * interval '1 second')
 ORDER BY name LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class OverdueSchedule:
    """A schedule that has been due for ``waited`` seconds.

    Args:
        broken: why, if a coordinator has found out.
    """

    name: str
    workflow: str
    next_slot: datetime | None
    waited: float
    broken: str | None


@dataclass(frozen=True, slots=True)
class BrokenSchedule:
    """A schedule that starts nothing, and why."""

    name: str
    workflow: str
    broken: str


async def list_overdue_schedules(
    connection: Driver | DriverPool, after: float = OVERDUE_AFTER, *, limit: int = 20
) -> list[OverdueSchedule]:
    """Return schedules that have been due for ``after`` seconds, those first that have waited longest."""
    return [OverdueSchedule(**row) for row in await connection.fetch(_OVERDUE, after, limit)]


async def count_overdue_schedules(connection: Driver | DriverPool, after: float = OVERDUE_AFTER) -> int:
    """Return how many schedules have been due for ``after`` seconds."""
    count: int = await connection.fetchval(_COUNT_OVERDUE, after)
    return count


async def list_broken_schedules(
    connection: Driver | DriverPool, after: float = OVERDUE_AFTER, *, limit: int = 20
) -> list[BrokenSchedule]:
    """Return schedules that are not overdue, and whose last start was refused for what they are."""
    return [BrokenSchedule(**row) for row in await connection.fetch(_BROKEN, after, limit)]
