"""Read what there is at this moment – processes by status, steps that run, programs – with statements of asyncpg alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from orchestrator.db.session import Driver

# From the index on the status alone, however many processes have ended.
_COUNT = "SELECT status, count(*) AS processes FROM processes GROUP BY status ORDER BY count(*) DESC, status"

_STEPS = """
SELECT p.process_id, p.workflow, p.step, p.attempt, p.claimed_at, c.name AS consumer,
       GREATEST(0, EXTRACT(EPOCH FROM now() - p.claimed_at))::float8 AS running_for
  FROM processes p LEFT JOIN consumers c ON c.consumer_id = p.claimed_by
 WHERE p.status = 'running' AND p.claimed_by IS NOT NULL
 ORDER BY p.claimed_at, p.process_id
 LIMIT $1
"""

# Whoever may use the database sees the names of its connections; since when they are open, of those of the same user.
_PROGRAMS = """
SELECT split_part(application_name, ' ', 2) AS name, min(backend_start) AS connected_since
  FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE $1 || ' %'
 GROUP BY application_name ORDER BY application_name
"""


@dataclass(frozen=True, slots=True)
class RunningStep:
    """A step that a consumer runs.

    Args:
        consumer: its name; ``None`` when it has gone and the claim is about to be given to another one.
        running_for: seconds since the claim, by the database's clock.
    """

    process_id: UUID
    workflow: str
    step: str | None
    attempt: int
    claimed_at: datetime
    consumer: str | None
    running_for: float


@dataclass(frozen=True, slots=True)
class ConnectedProgram:
    """A program by the name of its connections: ``host:pid``, cut where the name is too long for PostgreSQL."""

    name: str
    connected_since: datetime | None


async def count_by_status(connection: Driver) -> dict[str, int]:
    """Return how many processes there are in each status, the most first."""
    return {row["status"]: row["processes"] for row in await connection.fetch(_COUNT)}


async def list_running_steps(connection: Driver, limit: int) -> list[RunningStep]:
    """Return the steps that run, the oldest first."""
    return [RunningStep(**row) for row in await connection.fetch(_STEPS, limit)]


async def list_connected(connection: Driver, kind: str) -> list[ConnectedProgram]:
    """Return the programs of a kind, such as ``coordinator``, that are connected to the database.

    Behind a pooler that shares connections among programs, some of them are not seen.
    """
    return [ConnectedProgram(**row) for row in await connection.fetch(_PROGRAMS, f"orchestrator-{kind}")]
