"""Find the processes that an operator wants to act on together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import ProcessRow


@dataclass(frozen=True, slots=True)
class ProcessFilter:
    """Which processes; all conditions that are given must hold.

    Args:
        step: the step at which it stands.
        since, until: when it changed last.
    """

    statuses: Sequence[str] = ()
    workflow: str | None = None
    step: str | None = None
    is_task: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every process fits."""
        return self == ProcessFilter()


@dataclass(frozen=True, slots=True)
class Match:
    """A process that fits, and how it stood when it was found."""

    process_id: UUID
    workflow: str
    status: str
    sequence: int


async def find_matching(session: AsyncSession, wanted: ProcessFilter, limit: int) -> tuple[int, list[Match]]:
    """Return how many processes fit, and the first ``limit`` of them, the oldest first."""
    conditions = _conditions(wanted)
    count = await session.scalar(select(func.count()).select_from(ProcessRow).where(*conditions))
    query = (
        select(ProcessRow.process_id, ProcessRow.workflow, ProcessRow.status, ProcessRow.sequence)
        .where(*conditions)
        .order_by(ProcessRow.started_at, ProcessRow.process_id)
        .limit(limit)
    )
    return count or 0, [Match(*row) for row in await session.execute(query)]


def _conditions(wanted: ProcessFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.statuses:
        found.append(ProcessRow.status.in_(wanted.statuses))
    if wanted.workflow is not None:
        found.append(ProcessRow.workflow == wanted.workflow)
    if wanted.step is not None:
        found.append(ProcessRow.step == wanted.step)
    if wanted.is_task is not None:
        found.append(ProcessRow.is_task == wanted.is_task)
    if wanted.since is not None:
        found.append(ProcessRow.updated_at >= wanted.since)
    if wanted.until is not None:
        found.append(ProcessRow.updated_at < wanted.until)
    return found
