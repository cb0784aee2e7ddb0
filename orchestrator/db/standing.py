"""Read where one process stands and what it waits for, by asyncpg alone: see :mod:`orchestrator.db.connection`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.db.status import RUNNABLE_BY, ConsumerSighting, list_consumers
from orchestrator.engine.state import read_leniently
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON

if TYPE_CHECKING:
    from orchestrator.db.session import Driver

# Each claim raises the attempt by one, so those since the newest entry of another step were tries of this one.
_STANDING = f"""
SELECT p.process_id, p.workflow, p.status, p.step, p.assignee, p.plan, p.updated_at, p.due_at, p.claimed_by, p.claimed_at,
       EXTRACT(EPOCH FROM now() - p.due_at)::float8 AS late,
       p.attempt - COALESCE((SELECT max(s.attempt) FROM process_steps s WHERE s.process_id = p.process_id
                              AND s.kind = 'step' AND s.name IS DISTINCT FROM p.step), 0) AS tries,
       {RUNNABLE_BY} AS plans,
       entered.finished_at AS entered_at,
       newest.name, newest.author, newest.note, newest.finished_at AS at,
       failed.name AS failed_step, failed.failure->>'type' AS failure_type, failed.failure->>'message' AS failure_message,
       c.step AS callback_step, c.deadline, c.progress::text AS progress, c.progress_count, c.progress_at,
       CASE WHEN c.outcome IS NOT NULL THEN c.received_at END AS answered_at
  FROM processes AS p
  LEFT JOIN LATERAL (SELECT s.finished_at FROM process_steps s WHERE s.process_id = p.process_id AND s.kind = 'step'
                      ORDER BY s.sequence DESC LIMIT 1) AS entered ON true
  LEFT JOIN LATERAL (SELECT s.name, s.author, s.note, s.finished_at FROM process_steps s
                      WHERE s.process_id = p.process_id ORDER BY s.sequence DESC LIMIT 1) AS newest ON true
  LEFT JOIN LATERAL (SELECT s.name, s.failure FROM process_steps s
                      WHERE s.process_id = p.process_id AND s.failure IS NOT NULL AND p.status <> 'completed'
                      ORDER BY s.sequence DESC LIMIT 1) AS failed ON true
  LEFT JOIN callbacks AS c ON c.process_id = p.process_id AND c.status IN ('open', 'parked')
 WHERE p.process_id = $1
"""  # noqa: S608 - built from constants

_AHEAD = """
SELECT workflow, step, count(*) AS processes FROM processes
 WHERE status = 'running' AND claimed_by IS NULL AND (updated_at, process_id) < ($1, $2)
 GROUP BY workflow, step
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest entry of a process's log: what was done, by whom, when."""

    name: str
    author: str
    note: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class LastFailure:
    """The newest error in a process's log; ``step`` is ``failed`` when it was no step's."""

    step: str
    type: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class AwaitedCallback:
    """The callback that a process waits for, how often progress was reported, and when it was answered, if it was."""

    step: str
    deadline: datetime | None
    progress: JSON
    reports: int
    reported_at: datetime | None
    answered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a process stands.

    Args:
        plans: the fingerprints of the plans with which a program can take it on.
        since: when it came into its status.
        late: seconds for which it has been due; negative before, ``None`` when it is never due.
        claimed_by, claimed_at: the consumer that runs its step, and since when.
        tries: how often its step has been claimed.
    """

    process_id: UUID
    workflow: str
    status: str
    step: str | None
    assignee: str
    plan: str | None
    plans: Sequence[str]
    since: datetime
    due_at: datetime | None
    late: float | None
    claimed_by: UUID | None
    claimed_at: datetime | None
    tries: int
    newest: Entry | None
    failure: LastFailure | None
    callback: AwaitedCallback | None


async def read_standing(connection: Driver, process_id: UUID) -> Standing:
    """Return where a process stands.

    Raises:
        NotFoundError.
    """
    row = await connection.fetchrow(_STANDING, process_id)
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    callback = None
    if row["callback_step"] is not None:
        progress = None if row["progress"] is None else read_leniently(row["progress"])
        callback = AwaitedCallback(
            row["callback_step"],
            row["deadline"],
            progress,
            row["progress_count"],
            row["progress_at"],
            row["answered_at"],
        )
    is_running = row["status"] == "running"
    return Standing(
        process_id=row["process_id"],
        workflow=row["workflow"],
        status=row["status"],
        step=row["step"],
        assignee=row["assignee"],
        plan=row["plan"],
        plans=tuple(row["plans"]),
        since=row["updated_at"] if is_running else row["entered_at"] or row["updated_at"],
        due_at=row["due_at"],
        late=row["late"],
        claimed_by=row["claimed_by"],
        claimed_at=row["claimed_at"],
        tries=row["tries"],
        newest=None if row["name"] is None else Entry(row["name"], row["author"], row["note"], row["at"]),
        failure=None
        if row["failed_step"] is None
        else LastFailure(row["failed_step"], row["failure_type"], row["failure_message"]),
        callback=callback,
    )


async def count_ahead(connection: Driver, standing: Standing) -> Mapping[tuple[str, str | None], int]:
    """Return how many unclaimed steps have waited longer than a process's, by workflow and step."""
    rows = await connection.fetch(_AHEAD, standing.since, standing.process_id)
    return {(row["workflow"], row["step"]): row["processes"] for row in rows}


async def read_claimant(connection: Driver, consumer_id: UUID) -> ConsumerSighting | None:
    """Return the consumer that has claimed a step; ``None`` when its row is gone."""
    return next(iter(await list_consumers(connection, consumer_id)), None)
