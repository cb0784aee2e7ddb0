"""Read the processes that may still move: one at a time, because there may be many, with large states."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.rows import COLUMNS, build_process
from orchestrator.engine.process import Process
from orchestrator.types import ProcessStatus

# One pass over the table: there is no index of unfinished processes, and this runs once for each deployment.
_UNFINISHED = text(
    f"""
    SELECT {COLUMNS} FROM processes AS p
     WHERE p.status NOT IN ('completed', 'aborted') ORDER BY p.workflow, p.started_at, p.process_id
    """  # noqa: S608 - built from constants
)

_UNFINISHED_STATUSES = sorted(status.value for status in ProcessStatus if not status.is_final)

_SERIALIZED = "orchestrator.serialized_starts"
"""The key in a session's ``info`` for the workflows for which it has called :func:`serialize_starts`."""

_SET_PATIENCE = text("SELECT set_config('lock_timeout', :patience, true)")
_SERIALIZE = text("SELECT pg_advisory_xact_lock(hashtextextended('start of ' || :workflow, 0))")
# By status first: of the finished processes of a workflow there may be a million.
_UNCOMPLETED = text(
    """
    SELECT process_id, status, count(*) OVER () AS total
      FROM processes WHERE status = ANY(:statuses) AND workflow = :workflow
     ORDER BY started_at, process_id LIMIT :limit
    """
)


async def serialize_starts(session: AsyncSession, workflow: str) -> None:
    """Wait until every other transaction that called this for the workflow has ended; later ones wait for this one."""
    session.info.setdefault(_SERIALIZED, set()).add(workflow)
    await session.execute(_SERIALIZE, {"workflow": workflow})


def has_serialized_starts(session: AsyncSession, workflow: str) -> bool:
    """Return whether :func:`serialize_starts` was called for the workflow in this session."""
    return workflow in session.info.get(_SERIALIZED, ())


async def serialize_starts_at_once(session: AsyncSession, workflow: str) -> None:
    """Do the same as :func:`serialize_starts`, but hardly wait, because the others may wait for locks of this transaction.

    Raises:
        DBAPIError: another transaction has not ended; what was done in this one is lost.
    """
    await session.execute(_SET_PATIENCE, {"patience": "50ms"})
    await session.execute(_SERIALIZE, {"workflow": workflow})
    await session.execute(_SET_PATIENCE, {"patience": "2s"})


async def find_uncompleted(session: AsyncSession, workflow: str, limit: int) -> tuple[int, list[tuple[UUID, str]]]:
    """Return how many processes of a workflow are not finished, and the oldest of them with their statuses."""
    values = {"statuses": _UNFINISHED_STATUSES, "workflow": workflow, "limit": limit}
    rows = (await session.execute(_UNCOMPLETED, values)).all()
    return (rows[0].total if rows else 0), [(row.process_id, row.status) for row in rows]


async def iterate_unfinished(session: AsyncSession) -> AsyncIterator[Process]:
    """Yield the processes that may still move, by workflow and the oldest first."""
    # In small portions, so that other tasks of the program can run in between.
    rows = await session.stream(_UNFINISHED, execution_options={"yield_per": 50})
    async for row in rows.mappings():
        yield build_process(row)
