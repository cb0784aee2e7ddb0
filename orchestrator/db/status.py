"""Read what runs and what waits, with statements of asyncpg alone: see :mod:`orchestrator.db.connection`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from pydantic_core import from_json

if TYPE_CHECKING:
    from orchestrator.db.session import Driver, DriverPool

IS_PAUSED = "EXISTS (SELECT FROM engine_settings WHERE global_lock)"
"""SQL: whether the engine is paused. For statements that must ask in the same moment in which they act."""

IS_SILENT = "c.seen_at < now() - c.presumed_dead_after * interval '1 second'"
"""SQL: whether the consumer ``c`` has been silent for longer than it has said that it may be."""

REGISTERED = """(SELECT registered.fingerprint FROM workflow_plans AS registered
    WHERE registered.workflow = p.workflow ORDER BY registered.number DESC LIMIT 1)"""
"""SQL: the fingerprint of the registered plan of the workflow of ``processes AS p``; ``NULL`` when there is none."""

RUNNABLE_BY = f"array_remove(ARRAY[p.plan, {REGISTERED}], NULL)"
"""SQL: the fingerprints of the plans with which a program can take on ``processes AS p``: its own, or the registered one."""

# Only running processes are claimed; they are few, and indexed.
_ENGINE = """
SELECT global_lock AS paused,
       (SELECT count(*) FROM processes WHERE status = 'running' AND claimed_by IS NOT NULL) AS running,
       NULLIF(changed_by, '') AS changed_by, CASE WHEN changed_by <> '' THEN changed_at END AS changed_at, reason
  FROM engine_settings
"""

_CONSUMERS = f"""
SELECT c.name, c.queues, c.concurrency, c.started_at, c.seen_at, c.heartbeat_interval, c.presumed_dead_after,
       GREATEST(0, EXTRACT(EPOCH FROM now() - c.seen_at))::float8 AS silent_for, NOT {IS_SILENT} AS alive,
       CASE WHEN c.blocked_by IS NOT NULL THEN EXTRACT(EPOCH FROM now() - c.responsive_at) END::float8 AS blocked_for,
       c.blocked_by::text AS blocked_by,
       (SELECT count(*) FROM processes p WHERE p.status = 'running' AND p.claimed_by = c.consumer_id) AS running,
       c.knows::text AS knows, COALESCE(c.broken, '{{}}')::text AS broken, c.revisions,
       c.threads_left_behind
  FROM consumers c
 WHERE $1::uuid IS NULL OR c.consumer_id = $1
 ORDER BY c.name
"""  # noqa: S608 - built from constants

_UNCLAIMED = f"""
SELECT p.workflow, p.step, p.processes, p.longest, {RUNNABLE_BY} AS plans
  FROM (SELECT workflow, step, plan, count(*) AS processes, max(waited)::float8 AS longest
          FROM (SELECT workflow, step, plan, EXTRACT(EPOCH FROM now() - updated_at) AS waited
                  FROM processes
                 WHERE status = 'running' AND claimed_by IS NULL) unclaimed
         WHERE waited > $1::float8
         GROUP BY workflow, step, plan) p
 ORDER BY longest DESC
"""  # noqa: S608 - built from constants

_COUNT_UNCLAIMED = """
SELECT count(*) AS unclaimed, now() AS at FROM processes WHERE status = 'running' AND claimed_by IS NULL
"""

_COUNT_WAITING = """
SELECT count(*) FROM (SELECT FROM processes WHERE status = 'running' AND claimed_by IS NULL LIMIT $1) AS waiting
"""

_OVERDUE = """
SELECT workflow, plan, count(*) AS processes, max(waited)::float8 AS longest
  FROM (SELECT workflow, plan, EXTRACT(EPOCH FROM now() - wake_at) AS waited FROM processes WHERE wake_at <= now()
        UNION ALL
        SELECT workflow, plan, EXTRACT(EPOCH FROM now() - due_at) FROM processes
         WHERE status = 'running' AND claimed_by IS NULL AND due_at <= now()) AS due
 WHERE waited > $1::float8
 GROUP BY workflow, plan
 ORDER BY longest DESC
"""

# Only processes whose events are left in the rows have announce_at.
_UNCONFIRMED = """
SELECT count(*) AS processes, min(s.finished_at) AS since, EXTRACT(EPOCH FROM now() - min(s.finished_at))::float8 AS waited
  FROM processes p JOIN process_steps s ON s.process_id = p.process_id AND s.sequence = p.announced + 1
 WHERE p.announce_at IS NOT NULL AND s.finished_at < now() - $1::float8 * interval '1 second'
"""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether the engine is paused, how many steps run, and who has paused or unpaused it last, when and why.

    Args:
        changed_by, changed_at: ``None`` when it was never paused.
    """

    paused: bool
    running: int
    changed_by: str | None = None
    changed_at: datetime | None = None
    reason: str | None = None

    @property
    def word(self) -> Literal["RUNNING", "PAUSING", "PAUSED"]:
        """RUNNING, PAUSING while steps still run, or PAUSED."""
        if not self.paused:
            return "RUNNING"
        return "PAUSING" if self.running else "PAUSED"


@dataclass(frozen=True, slots=True)
class ConsumerSighting:
    """A consumer, what was seen of it, and how many steps it runs.

    Args:
        heartbeat_interval, presumed_dead_after: its own settings, by which others judge its silence.
        silent_for: seconds since its last heartbeat, by the database's clock.
        alive: whether that is less than ``presumed_dead_after``.
        knows: workflow → the fingerprint of its plan, of those that it can run; ``None`` when it has not reported.
        broken: workflow → why it cannot be run there.
        blocked_for: seconds for which its event loop has not responded; ``None`` when it responded at the last heartbeat.
        blocked_by: what blocks the loop: ``by``, ``at``, ``stack``, and the process.
        revisions: the newest migrations that its code has; nothing when it has not reported.
        threads_left_behind: how many of its threads run functions that go on although their steps have ended.
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    started_at: datetime
    seen_at: datetime
    heartbeat_interval: float
    presumed_dead_after: float
    silent_for: float
    alive: bool
    running: int
    knows: Mapping[str, str] | None
    broken: Mapping[str, str]
    blocked_for: float | None = None
    blocked_by: dict[str, Any] | None = None
    revisions: tuple[str, ...] = ()
    threads_left_behind: int = 0

    def explain_inability(self, workflow: str, plans: Sequence[str] = ()) -> str | None:
        """Return why this consumer cannot run a workflow, as a predicate; ``None`` when it can.

        Args:
            plans: the fingerprints of the plans of which it must have one; empty for any.
        """
        return explain_inability(workflow, plans, self.knows, self.broken)


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Processes that stand at one step and wait for a consumer, and for how many seconds the longest has.

    Args:
        plans: the fingerprints of the plans with which a consumer can run the step.
    """

    workflow: str
    step: str | None
    processes: int
    longest: float
    plans: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Overdue:
    """Processes that have one plan and that no coordinator has looked at since they are due, the longest for so many seconds."""

    workflow: str
    plan: str | None
    processes: int
    longest: float


def explain_inability(
    workflow: str, plans: Sequence[str], knows: Mapping[str, str] | None, broken: Mapping[str, str]
) -> str | None:
    """Return why a consumer that has reported this cannot run a workflow, as a predicate; ``None`` when it can.

    Args:
        plans: the fingerprints of the plans of which it must have one; empty for any.
    """
    if workflow in broken:
        return f"cannot run '{workflow}': {broken[workflow]}"
    if knows is None:
        return None
    if workflow not in knows:
        return f"does not know '{workflow}'"
    if not plans or knows[workflow] in plans:
        return None
    return f"has another plan of '{workflow}' than the process, and not the registered one"


@dataclass(frozen=True, slots=True)
class UnconfirmedEvents:
    """How many processes have events that the broker has not confirmed, and since when the oldest has waited."""

    processes: int
    since: datetime | None
    waited: float | None


async def read_unconfirmed_events(connection: Driver, after: float) -> UnconfirmedEvents:
    """Return which events the broker has not confirmed for ``after`` seconds."""
    (row,) = await connection.fetch(_UNCONFIRMED, after)
    return UnconfirmedEvents(**row)


async def count_open_letters(connection: Driver) -> int:
    """Return how many dead letters nobody has replayed or discarded."""
    count: int = await connection.fetchval("SELECT count(*) FROM dead_letters WHERE closed_at IS NULL")
    return count


async def read_engine_status(connection: Driver) -> EngineStatus:
    """Return whether the engine is paused, and how many steps run."""
    (row,) = await connection.fetch(_ENGINE)
    return EngineStatus(**row)


async def list_consumers(connection: Driver, consumer_id: UUID | None = None) -> list[ConsumerSighting]:
    """Return all consumers by name, or the one of this id."""
    rows = await connection.fetch(_CONSUMERS, consumer_id)
    return [
        ConsumerSighting(
            **{
                **row,
                "queues": tuple(row["queues"]),
                "blocked_by": _parse(row["blocked_by"]),
                "knows": _parse(row["knows"]),
                "broken": from_json(row["broken"]),
                "revisions": tuple(row["revisions"] or ()),
            }
        )
        for row in rows
    ]


async def list_unclaimed(connection: Driver, after: float) -> list[Unclaimed]:
    """Return the steps that no consumer has claimed for ``after`` seconds, the longest wait first."""
    return [Unclaimed(**row) for row in await connection.fetch(_UNCLAIMED, after)]


async def count_unclaimed(connection: Driver) -> tuple[int, datetime]:
    """Return how many steps no consumer has claimed, and the time by the database's clock."""
    (row,) = await connection.fetch(_COUNT_UNCLAIMED)
    return row["unclaimed"], row["at"]


async def count_waiting(connection: Driver | DriverPool, limit: int) -> int:
    """Return how many running processes wait for a coordinator or consumer, ``limit`` at most."""
    count: int = await connection.fetchval(_COUNT_WAITING, limit)
    return count


async def list_overdue(connection: Driver | DriverPool, after: float) -> list[Overdue]:
    """Return the processes that have been due for ``after`` seconds, by workflow and plan, the longest first."""
    return [Overdue(**row) for row in await connection.fetch(_OVERDUE, after)]


def _parse(text: str | None) -> dict[str, Any] | None:
    return None if text is None else dict(from_json(text))
