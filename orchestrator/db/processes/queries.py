"""Read processes and their logs, for people.

One process is found by its key and the newest ones by their index, however many there are. :func:`list_processes` says
where that does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import LogRow, ProcessRow, WorkflowRow, columns_of
from orchestrator.engine.log import LogEntry
from orchestrator.errors import NotFoundError
from orchestrator.types import ProcessStatus, State


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """A process without its state.

    Args:
        claimed: whether a consumer runs its step at this moment.
        due_at: when the engine looks at it again, or tries a waiting step again.
        assignee: who is to act on it; ``SYSTEM`` for the engine.
    """

    process_id: UUID
    workflow: str
    is_task: bool
    status: str
    step: str | None
    sequence: int
    started_by: str
    actor: str
    started_at: datetime
    updated_at: datetime
    claimed: bool
    due_at: datetime | None
    assignee: str


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Processes that stand at one step and wait for a consumer, and for how many seconds the longest has."""

    workflow: str
    step: str | None
    processes: int
    longest: float


async def list_processes(
    session: AsyncSession,
    *,
    statuses: Iterable[str] = (),
    workflow: str | None = None,
    is_task: bool | None = None,
    limit: int,
) -> list[ProcessSummary]:
    """Return the newest processes that fit, newest first: the index on ``started_at`` is read until ``limit`` are found.

    No index knows statuses or tasks: when fewer than ``limit`` fit, all processes are read (0.1 ms for each thousand).
    """
    query = _summaries().order_by(ProcessRow.started_at.desc(), ProcessRow.process_id).limit(limit)
    if wanted := list(statuses):
        query = query.where(ProcessRow.status.in_(wanted))
    if workflow is not None:
        # Removed ones as well: the processes of a workflow that was registered again belong to several rows.
        ids = select(WorkflowRow.workflow_id).where(WorkflowRow.name == workflow)
        query = query.where(ProcessRow.workflow_id.in_(ids))
    if is_task is not None:
        query = query.where(ProcessRow.is_task.is_(is_task))
    return [ProcessSummary(*row) for row in await session.execute(query)]


async def read_processes(session: AsyncSession, process_ids: Sequence[UUID]) -> list[ProcessSummary]:
    """Return these processes without their states, the oldest first."""
    query = _summaries().where(ProcessRow.process_id.in_(process_ids))
    query = query.order_by(ProcessRow.started_at, ProcessRow.process_id)
    return [ProcessSummary(*row) for row in await session.execute(query)]


async def read_process(session: AsyncSession, process_id: UUID) -> ProcessSummary:
    """Return one process without its state.

    Raises:
        NotFoundError.
    """
    row = (await session.execute(_summaries().where(ProcessRow.process_id == process_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return ProcessSummary(*row)


async def read_state(session: AsyncSession, process_id: UUID) -> State:
    """Return what a process knows now.

    Raises:
        NotFoundError.
    """
    state = await session.scalar(select(ProcessRow.state).where(ProcessRow.process_id == process_id))
    if state is None:
        raise NotFoundError(f"there is no process {process_id}")
    return dict(state)


async def read_log(session: AsyncSession, process_id: UUID, *, after: int = 0) -> list[LogEntry]:
    """Return the entries of a process's log after entry number ``after``, in order."""
    query = _entries().where(LogRow.process_id == process_id, LogRow.sequence > after).order_by(LogRow.sequence)
    return [_entry(row) for _, *row in await session.execute(query)]


async def read_logs(session: AsyncSession, process_ids: Sequence[UUID]) -> dict[UUID, list[LogEntry]]:
    """Return the whole logs of several processes, in one statement."""
    query = _entries().where(LogRow.process_id.in_(process_ids)).order_by(LogRow.process_id, LogRow.sequence)
    logs: dict[UUID, list[LogEntry]] = {process_id: [] for process_id in process_ids}
    for process_id, *row in await session.execute(query):
        logs[process_id].append(_entry(row))
    return logs


async def list_unclaimed(session: AsyncSession, after: float) -> list[Unclaimed]:
    """Return the steps that no consumer has claimed for ``after`` seconds, the longest wait first."""
    waited = func.extract("epoch", func.now() - ProcessRow.updated_at)
    longest = func.max(waited)
    query = (
        select(ProcessRow.workflow, ProcessRow.step, func.count(), longest)
        .where(ProcessRow.status == ProcessStatus.RUNNING.value, ProcessRow.claimed_by.is_(None), waited > after)
        .group_by(ProcessRow.workflow, ProcessRow.step)
        .order_by(longest.desc())
    )
    return [Unclaimed(name, step, count, float(most)) for name, step, count, most in await session.execute(query)]


def _summaries() -> Select[*tuple[Any, ...]]:
    return select(*columns_of(ProcessRow, ProcessSummary, claimed=ProcessRow.claimed_by.is_not(None)))


def _entries() -> Select[*tuple[Any, ...]]:
    return select(LogRow.process_id, *columns_of(LogRow, LogEntry))


def _entry(row: Sequence[Any]) -> LogEntry:
    entry = LogEntry(*row)
    return replace(entry, removed=tuple(entry.removed or ()))
