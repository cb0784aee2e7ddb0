"""Claiming steps: the statement that fences a step and fetches what is needed to run it, for many steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
from pydantic_core import from_json

from orchestrator.db.session import Driver
from orchestrator.engine.process import Process
from orchestrator.types import ProcessStatus

_COLUMNS = """p.process_id, p.workflow, p.status, p.position, p.step, p.entered, p.attempt, p.sequence, p.failures, p.lost,
          p.rewinds, p.state::text AS state, p.started_by, p.actor, p.assignee, p.claimed_at"""

# A claim need not survive a crash of the server: losing it only means that the command is published again, and a commit is
# fenced by the claiming consumer's id as well as by the attempt. So it may skip the wait for the disk. The setting is made
# in the RETURNING list, which runs only if something was claimed, inside the statement's own transaction.
_CLAIM = f"""
UPDATE processes AS p
   SET attempt = p.attempt + 1, claimed_by = $1, claimed_at = now(), dispatches = 0,
       announced = GREATEST(p.announced, c.announced)
  FROM unnest($2::uuid[], $3::int[], $4::int[], $5::int[]) AS c(process_id, position, attempt, announced)
 WHERE p.process_id = c.process_id AND p.status = 'running' AND p.position = c.position AND p.attempt = c.attempt
   AND p.claimed_by IS NULL
   AND NOT EXISTS (SELECT FROM engine_settings WHERE global_lock)
   AND EXISTS (SELECT FROM consumers WHERE consumer_id = $1)
RETURNING {_COLUMNS}, set_config('synchronous_commit', 'off', true)
"""  # noqa: S608 - built from constants

_HELD = f"SELECT {_COLUMNS} FROM processes AS p WHERE p.status = 'running' AND p.claimed_by = $1"  # noqa: S608 - as above


@dataclass(frozen=True, slots=True)
class Wanted:
    """A step that a command asks for.

    Args:
        announced: up to which log entry events have been published; written down on the way.
    """

    process_id: UUID
    position: int
    attempt: int
    announced: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that this consumer, and nobody else, may commit."""

    process: Process
    consumer_id: UUID
    consumer: str
    claimed_at: datetime


async def claim_many(
    connection: Driver, wanted: Sequence[Wanted], *, consumer_id: UUID, consumer: str
) -> list[Claim | None]:
    """Fence steps: raise their attempts and mark who runs them, all in one statement.

    Returns:
        For each wanted step a claim, or ``None`` when the command is stale or the engine is paused. Of two commands for
        one step the first gets it.
    """
    # In one order everywhere, so that two consumers which want the same steps do not wait for each other.
    ordered = sorted(wanted, key=lambda one: one.process_id)
    rows = await connection.fetch(
        _CLAIM,
        consumer_id,
        [one.process_id for one in ordered],
        [one.position for one in ordered],
        [one.attempt for one in ordered],
        [one.announced for one in ordered],
    )
    found = {row["process_id"]: Claim(_process(row), consumer_id, consumer, row["claimed_at"]) for row in rows}
    claims: list[Claim | None] = []
    for one in wanted:
        claimed = found.get(one.process_id)
        # The row was claimed for one command; another for the same process may have asked for another attempt.
        fits = (
            claimed is not None
            and claimed.process.attempt == one.attempt + 1
            and claimed.process.position == one.position
        )
        claims.append(found.pop(one.process_id) if fits else None)
    return claims


async def held(connection: Driver, consumer_id: UUID, consumer: str) -> list[Claim]:
    """Everything that a consumer has claimed, as the database sees it."""
    rows = await connection.fetch(_HELD, consumer_id)
    return [Claim(_process(row), consumer_id, consumer, row["claimed_at"]) for row in rows]


def _process(row: asyncpg.Record) -> Process:
    return Process(
        process_id=row["process_id"],
        workflow=row["workflow"],
        status=ProcessStatus(row["status"]),
        position=row["position"],
        step=row["step"],
        entered=row["entered"],
        attempt=row["attempt"],
        sequence=row["sequence"],
        failures=row["failures"],
        lost=row["lost"],
        rewinds=row["rewinds"],
        state=from_json(row["state"]),
        started_by=row["started_by"],
        actor=row["actor"],
        assignee=row["assignee"],
    )
