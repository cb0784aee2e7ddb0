"""Count processes by their status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.types import ProcessStatus

# An index-only scan.
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
    """The number of processes, and of tasks, in each status; statuses without any are left out."""

    process_counts: Mapping[str, int]
    task_counts: Mapping[str, int]


async def count_statuses(session: AsyncSession) -> StatusCounts:
    """Return the number of processes and tasks in each status."""
    rows = (await session.execute(_COUNT)).all()
    return StatusCounts(
        {status: count for is_task, status, count in rows if not is_task},
        {status: count for is_task, status, count in rows if is_task},
    )


async def count_steps(session: AsyncSession, workflow: str) -> list[StepCount]:
    """Return the number of unfinished processes of a workflow at each step, by the steps' names."""
    rows = await session.execute(_COUNT_STEPS, {"statuses": _UNFINISHED, "workflow": workflow})
    return [StepCount(step, status, count) for step, status, count in rows]
