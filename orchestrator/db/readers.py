"""Which consumers read a step queue and can run a workflow, and what becomes of commands that no consumer can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import DriverPool
from orchestrator.db.status import IS_PAUSED, IS_SILENT, REGISTERED, explain_inability
from orchestrator.messages import StepCommand

_IS_CURRENT = """
process_id = $1 AND status = 'running' AND claimed_by IS NULL AND position = $2 AND attempt = $3
"""

# A consumer of an older version reports nothing, and may know the workflow. One with the registered plan moves a process to it.
_READINESS = f"""
SELECT NOT {IS_PAUSED} AND EXISTS (SELECT FROM processes WHERE {_IS_CURRENT}) AS is_current,
       EXISTS (SELECT FROM consumers c
                WHERE c.consumer_id <> $4 AND $5 = ANY(c.queues)
                  AND (c.knows IS NULL OR CASE WHEN $7::text IS NULL THEN c.knows ? p.workflow
                                               ELSE c.knows ->> p.workflow IN ($7, {REGISTERED}) END)
                  AND NOT {IS_SILENT}) AS has_reader
  FROM (SELECT $6::text AS workflow) AS p
"""  # noqa: S608 - built from constants

# By this mark make_waiting_due() finds the processes whose commands are in no queue.
_DROP = f"""
UPDATE processes SET dispatches = -GREATEST(abs(dispatches), 1) WHERE {_IS_CURRENT}
"""  # noqa: S608 - built from constants

# Locked in one order everywhere.
_MAKE_WAITING_DUE = """
UPDATE processes SET due_at = now(), dispatches = -1
 WHERE process_id IN (SELECT process_id FROM processes
                       WHERE status = 'running' AND claimed_by IS NULL AND dispatches < 0 AND workflow = ANY($1::text[])
                       ORDER BY process_id FOR NO KEY UPDATE)
"""


_LIST_READERS = text(
    f"""
    SELECT c.name, c.knows IS NULL AS has_not_reported, c.knows ->> :workflow AS plan, c.broken ->> :workflow AS defect
      FROM consumers c WHERE :queue = ANY(c.queues) AND NOT {IS_SILENT} ORDER BY c.name
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a step may run now, and whether another living consumer of its queue can run it."""

    is_current: bool
    has_reader: bool


@dataclass(frozen=True, slots=True)
class QueueReader:
    """A living consumer of a queue, and why it cannot run a workflow; ``None`` when it can."""

    name: str
    inability: str | None


async def list_readers(session: AsyncSession, queue: str, workflow: str, plans: Sequence[str]) -> list[QueueReader]:
    """Return the living consumers of a step queue, by name.

    Args:
        plans: the fingerprints of the plans with which one can run the step; empty for any.
    """
    found = []
    for row in await session.execute(_LIST_READERS, {"queue": queue, "workflow": workflow}):
        knows = None if row.has_not_reported else {workflow: row.plan} if row.plan is not None else {}
        broken = {} if row.defect is None else {workflow: row.defect}
        found.append(QueueReader(row.name, explain_inability(workflow, plans, knows, broken)))
    return found


async def find_readiness(pool: DriverPool, command: StepCommand, queue: str, *, consumer_id: UUID) -> Readiness:
    """Return what can become of a command that the consumer ``consumer_id`` cannot carry out."""
    row = await pool.fetchrow(
        _READINESS,
        command.process_id,
        command.position,
        command.attempt,
        consumer_id,
        queue,
        command.workflow,
        command.plan,
    )
    assert row is not None  # noqa: S101 - it reads from one row
    return Readiness(**row)


async def drop_command(pool: DriverPool, command: StepCommand) -> None:
    """Record that the command of a step is in no queue any more; the reconciler publishes it again when it is due."""
    await pool.execute(_DROP, command.process_id, command.position, command.attempt)


async def make_waiting_due(pool: DriverPool, knows: Mapping[str, str]) -> None:
    """Make the processes due at once whose commands were dropped, of the workflows that a new consumer can run."""
    await pool.execute(_MAKE_WAITING_DUE, list(knows))
