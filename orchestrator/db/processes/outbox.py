"""Record up to which log entry the broker has confirmed the events of a process, and find unconfirmed ones.

The log is the outbox. ``announced`` only rises, and only past confirmed events: a program that knows it may publish the next
event, and no lock is needed to keep them in order. ``announce_at`` is set while events must be read from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.parameters import unnest_by_key
from orchestrator.db.session import Driver, DriverPool

ANNOUNCE_SOON = "statement_timestamp() + interval '5 seconds'"
"""SQL: when to read a process's events from the rows, unless they are marked as confirmed before."""

MOST_ENTRIES = 200
"""The most log entries of one process to read at a time."""

# Marks only rise, so they may be written late and in any order. The rows are locked in the same order everywhere; otherwise two
# coordinators that mark the same processes could deadlock. wake_at is set for rows that older programs have written.
_MARKS = unnest_by_key("w", {"process_id": "uuid", "announced": "int", "again": "float8"}, 1)
_MARK = f"""
UPDATE processes AS p
   SET announced = GREATEST(p.announced, m.announced),
       announce_at = CASE WHEN GREATEST(p.announced, m.announced) < p.sequence
                          THEN LEAST(p.announce_at, statement_timestamp() + m.again * interval '1 second') END,
       wake_at = CASE WHEN p.status <> 'running' THEN p.due_at END
  FROM (SELECT p.process_id, w.announced, w.again
          FROM processes p JOIN {_MARKS} USING (process_id)
         ORDER BY p.process_id FOR NO KEY UPDATE OF p) AS m
 WHERE p.process_id = m.process_id
"""  # noqa: S608 - built from constants

# If a crash of the server loses a mark, events are only repeated, so it need not wait for the disk. But a mark that says when to
# try the rest again must, because the message with these events is acknowledged once the mark is stored.
_MARK_WITHOUT_WAIT = f"{_MARK} RETURNING set_config('synchronous_commit', 'off', true)"

# Workflow by workflow, so that the backlog of one does not delay the others', because its queue may be the only full one. The
# first part is a loose index scan, whose cost grows with the workflows, not the processes. The end uses an array and not a join:
# the planner cannot estimate how many are due, and would read the whole table.
_BEHIND = """
WITH RECURSIVE behind(workflow) AS (
    (SELECT workflow FROM processes WHERE announce_at IS NOT NULL ORDER BY workflow LIMIT 1)
    UNION ALL
    SELECT (SELECT p.workflow FROM processes p
             WHERE p.announce_at IS NOT NULL AND p.workflow > behind.workflow ORDER BY p.workflow LIMIT 1)
      FROM behind WHERE behind.workflow IS NOT NULL
)
"""
_LIST_BEHIND = f"{_BEHIND} SELECT workflow FROM behind WHERE workflow IS NOT NULL"  # noqa: S608 - built from constants
_TAKE = f"""
{_BEHIND}, due AS (
    SELECT found.process_id
      FROM behind CROSS JOIN LATERAL (
               SELECT p.process_id FROM processes p
                WHERE p.workflow = behind.workflow AND p.announce_at <= statement_timestamp()
                ORDER BY p.announce_at
                LIMIT CASE WHEN behind.workflow = ANY($1::text[]) THEN 1 ELSE $2::int END
                  FOR NO KEY UPDATE SKIP LOCKED) AS found
)
UPDATE processes AS p SET announce_at = statement_timestamp() + $3::float8 * interval '1 second'
 WHERE p.process_id = ANY(ARRAY(SELECT process_id FROM due))
RETURNING p.process_id, p.workflow
"""  # noqa: S608 - built from constants

_READ = text(
    f"""
    SELECT p.announced, w.target, p.is_task, s.sequence, s.kind, s.name, s.status, s.attempt, s.author, s.position,
           s.finished_at AS at
      FROM processes p
      JOIN workflows w ON w.workflow_id = p.workflow_id
      LEFT JOIN process_steps s ON s.process_id = p.process_id AND s.sequence > p.announced
     WHERE p.process_id = :process_id
     ORDER BY s.sequence
     LIMIT {MOST_ENTRIES}
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to which log entry a process's events are confirmed.

    Args:
        again: seconds after which the rest must be read from the rows; ``None`` if there is none, or another program has it.
    """

    announced: int
    again: float | None = None

    def merge(self, other: Mark) -> Mark:
        """Return the union of two marks."""
        again = min((one for one in (self.again, other.again) if one is not None), default=None)
        return Mark(max(self.announced, other.announced), again)


@dataclass(frozen=True, slots=True)
class Behind:
    """A process whose events a coordinator has taken over to publish."""

    process_id: UUID
    workflow: str


@dataclass(frozen=True, slots=True)
class Unannounced:
    """The data for a process's events: the log entries after ``announced``, in order and without a gap."""

    announced: int
    target: str
    is_task: bool
    entries: Sequence[Mapping[str, Any]] = ()


async def mark_announced(pool: Driver | DriverPool, marks: Mapping[UUID, Mark]) -> None:
    """Record what the broker has confirmed, and when to try the rest again; without a wait for the disk if nothing is left."""
    values = marks.values()
    query = _MARK_WITHOUT_WAIT if all(one.again is None for one in values) else _MARK
    await pool.execute(query, list(marks), [one.announced for one in values], [one.again for one in values])


async def list_workflows_behind(pool: DriverPool) -> set[str]:
    """Return the workflows with processes whose events must be read from the rows, now or later."""
    return {row["workflow"] for row in await pool.fetch(_LIST_BEHIND)}


async def take_behind(pool: DriverPool, refused: Sequence[str], batch: int, lease: float) -> list[Behind]:
    """Take processes whose events must be read from the rows; for ``lease`` seconds no other coordinator takes them.

    Args:
        refused: workflows of which one process suffices, to probe whether the broker accepts their events again.
        batch: the number of processes of each other workflow.
    """
    return [Behind(*row) for row in await pool.fetch(_TAKE, refused, batch, lease)]


async def read_unannounced(session: AsyncSession, process_id: UUID) -> Unannounced | None:
    """Return the oldest log entries of a process whose events are not known to be confirmed.

    Returns:
        ``None`` when there is no such process.
    """
    rows = [dict(row) for row in (await session.execute(_READ, {"process_id": process_id})).mappings()]
    if not rows:
        return None
    common = [(row.pop("announced"), row.pop("target"), row.pop("is_task")) for row in rows]
    return Unannounced(*common[0], [row for row in rows if row["sequence"] is not None])
