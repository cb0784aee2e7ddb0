"""Count processes by their status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Read from the index alone.
_COUNT = text("SELECT is_task, status, count(*) FROM processes GROUP BY status, is_task")


@dataclass(frozen=True, slots=True)
class StatusCounts:
    """How many processes have which status; tasks apart from the others. Statuses that none has are left out."""

    process_counts: Mapping[str, int]
    task_counts: Mapping[str, int]


async def count_statuses(session: AsyncSession) -> StatusCounts:
    """Return how many processes and tasks have which status."""
    rows = (await session.execute(_COUNT)).all()
    return StatusCounts(
        {status: count for is_task, status, count in rows if not is_task},
        {status: count for is_task, status, count in rows if is_task},
    )
