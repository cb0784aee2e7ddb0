"""Count processes by their status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.types import ProcessStatus

# Read from the index alone.
_COUNT = text("SELECT is_task, status, count(*) FROM processes GROUP BY status, is_task")

_UNFINISHED = [status.value for status in ProcessStatus if not status.is_final]
# By status first: of the finished processes of a workflow there may be a million.
_COUNT_STEPS = text(
    """
    SELECT step, status, count(*) AS count FROM processes WHERE status = ANY(:statuses) AND workflow = :workflow
     GROUP BY step, status ORDER BY step, status
    """
)


@dataclass(frozen=True, slots=True)
class StepCount:
    """How many processes stand at a step in one status."""

    step: str | None
    status: str
    count: int


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


async def count_steps(session: AsyncSession, workflow: str) -> list[StepCount]:
    """Return how many unfinished processes of a workflow stand at which step, by the steps' names."""
    rows = await session.execute(_COUNT_STEPS, {"statuses": _UNFINISHED, "workflow": workflow})
    return [StepCount(step, status, count) for step, status, count in rows]
