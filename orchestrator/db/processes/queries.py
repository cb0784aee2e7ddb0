"""Reading processes and their logs, for people.

One process is found by its key and the newest ones by their index, however many there are. :func:`list_processes` says
where that does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import LogRow, ProcessRow, WorkflowRow
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON, ProcessStatus, State

_MISSING_TABLE = "42P01"
_MISSING_COLUMN = "42703"


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
class LogEntry:
    """One entry of a process's log: an attempt of a step, or something done to the process.

    Args:
        attempt: the engine's fencing number, which counts over the whole process.
        consumer: who ran it; ``None`` for entries about which no function ran.
    """

    sequence: int
    kind: str
    name: str
    position: int | None
    attempt: int
    status: str
    delta: State
    removed: tuple[str, ...]
    failure: dict[str, JSON] | None
    note: str | None
    author: str
    consumer: str | None
    started_at: datetime
    finished_at: datetime


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
    """The newest processes that fit, newest first: the index on ``started_at`` is read until ``limit`` are found.

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
    return [_summary(row) for row in await session.execute(query)]


async def require_workflow(session: AsyncSession, name: str) -> None:
    """Make sure that the database knows a workflow, be it one that was removed.

    Raises:
        NotFoundError.
    """
    if await session.scalar(select(WorkflowRow.workflow_id).where(WorkflowRow.name == name).limit(1)) is None:
        raise NotFoundError(f"the database knows no workflow {name!r}: 'orchestrator workflows' shows what there is")


async def read_process(session: AsyncSession, process_id: UUID) -> ProcessSummary:
    """One process without its state.

    Raises:
        NotFoundError.
    """
    row = (await session.execute(_summaries().where(ProcessRow.process_id == process_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return _summary(row)


async def read_state(session: AsyncSession, process_id: UUID) -> State:
    """What a process knows now.

    Raises:
        NotFoundError.
    """
    state = await session.scalar(select(ProcessRow.state).where(ProcessRow.process_id == process_id))
    if state is None:
        raise NotFoundError(f"there is no process {process_id}")
    return dict(state)


async def read_log(session: AsyncSession, process_id: UUID, *, after: int = 0) -> list[LogEntry]:
    """The entries of a process's log after entry number ``after``, in order."""
    query = select(LogRow).where(LogRow.process_id == process_id, LogRow.sequence > after).order_by(LogRow.sequence)
    return [
        LogEntry(
            sequence=row.sequence,
            kind=row.kind,
            name=row.name,
            position=row.position,
            attempt=row.attempt,
            status=row.status,
            delta=row.delta,
            removed=tuple(row.removed or ()),
            failure=row.failure,
            note=row.note,
            author=row.author,
            consumer=row.consumer,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )
        for row in await session.scalars(query)
    ]


async def list_unclaimed(session: AsyncSession, after: float) -> list[Unclaimed]:
    """The steps that nobody has claimed for ``after`` seconds, those first that have waited longest."""
    waited = func.extract("epoch", func.now() - ProcessRow.updated_at)
    longest = func.max(waited)
    query = (
        select(ProcessRow.workflow, ProcessRow.step, func.count(), longest)
        .where(ProcessRow.status == ProcessStatus.RUNNING.value, ProcessRow.claimed_by.is_(None), waited > after)
        .group_by(ProcessRow.workflow, ProcessRow.step)
        .order_by(longest.desc())
    )
    return [Unclaimed(name, step, count, float(most)) for name, step, count, most in await session.execute(query)]


async def applied_revisions(session: AsyncSession) -> list[str]:
    """The migrations in force; empty in a database that was never migrated."""
    if await session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return []
    return sorted(str(one) for one in await session.scalars(text("SELECT version_num FROM alembic_version")))


def state_after(entries: Sequence[LogEntry], sequence: int) -> State:
    """What the process knew after entry number ``sequence``: its log folded up to there."""
    state: State = {}
    for entry in entries:
        if entry.sequence > sequence:
            break
        state.update(entry.delta)
        for key in entry.removed:
            state.pop(key, None)
    return state


def tries(entries: Sequence[LogEntry]) -> dict[int, int]:
    """Which try of its step each entry is: sequence → 1, 2, …; entries about which nothing ran are left out.

    Each claim has a new attempt number, so the first entry with a new number tells of a new try. A lost attempt is logged
    for the process, not for its step, and counts for the step that comes next in the log.
    """
    numbers: dict[int, int] = {}
    counted: dict[str, int] = {}
    newest = pending = 0
    for entry in entries:
        is_new, newest = entry.attempt > newest, max(newest, entry.attempt)
        if entry.kind != "step":
            pending += is_new
            continue
        counted[entry.name] = counted.get(entry.name, 0) + pending + is_new
        pending = 0
        if is_new:
            numbers[entry.sequence] = counted[entry.name]
    return numbers


def is_not_migrated(error: BaseException) -> bool:
    """Whether an error means that the database lacks our tables, or has those of an older version."""
    found = error.orig if isinstance(error, DBAPIError) else error
    return getattr(found, "sqlstate", None) in {_MISSING_TABLE, _MISSING_COLUMN}


def _summaries() -> Select[*tuple[Any, ...]]:
    return select(
        ProcessRow.process_id,
        ProcessRow.workflow,
        ProcessRow.is_task,
        ProcessRow.status,
        ProcessRow.step,
        ProcessRow.sequence,
        ProcessRow.started_by,
        ProcessRow.actor,
        ProcessRow.started_at,
        ProcessRow.updated_at,
        ProcessRow.claimed_by.is_not(None),
        ProcessRow.due_at,
        ProcessRow.assignee,
    )


def _summary(row: Sequence[Any]) -> ProcessSummary:
    return ProcessSummary(*row)
