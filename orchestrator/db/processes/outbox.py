"""Record up to which log entry the events of a process have been published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import DriverPool
from orchestrator.db.tables import LogRow, ProcessRow

# Marks only rise, so they may be written late and in any order. The rows are locked in one order everywhere, or two
# coordinators that mark the same processes could deadlock.
_MARK = """
UPDATE processes
   SET announced = m.sequence,
       wake_at = CASE WHEN status <> 'running' AND processes.sequence = m.sequence THEN due_at ELSE wake_at END
  FROM (SELECT p.process_id, w.sequence
          FROM processes p JOIN unnest($1::uuid[], $2::int[]) AS w(process_id, sequence) USING (process_id)
         WHERE p.announced < w.sequence
         ORDER BY p.process_id FOR NO KEY UPDATE OF p) AS m
 WHERE processes.process_id = m.process_id
"""


async def mark_announced(pool: DriverPool, marks: Mapping[UUID, int]) -> None:
    """Record that events were published."""
    await pool.execute(_MARK, list(marks.keys()), list(marks.values()))


async def list_unannounced(session: AsyncSession, process_id: UUID) -> Sequence[Mapping[str, Any]]:
    """Return the log entries of a process whose events are not known to have been published, in order."""
    announced = select(ProcessRow.announced).where(ProcessRow.process_id == process_id).scalar_subquery()
    query = (
        select(LogRow.sequence, LogRow.kind, LogRow.name, LogRow.status, LogRow.attempt, LogRow.author, LogRow.position)
        .where(LogRow.process_id == process_id, LogRow.sequence > announced)
        .order_by(LogRow.sequence)
    )
    return [dict(row) for row in (await session.execute(query)).mappings()]
