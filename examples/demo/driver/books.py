"""Reads the database as an auditor would: what the engine has written, and what the workflow has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

_PROCESSES = """
SELECT p.process_id, p.state ->> 'customer' AS customer, (p.state ->> 'protection')::boolean AS protection, p.status,
       p.step, p.started_by, p.attempt AS attempts, p.updated_at - p.started_at AS took,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status IN ('success', 'complete')) AS steps,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status = 'skipped') AS skipped,
       count(*) FILTER (WHERE l.kind = 'step' AND l.status = 'waiting') AS tried_again,
       count(*) FILTER (WHERE l.kind = 'process' AND l.name = 'attempt lost') AS lost
  FROM processes p JOIN process_steps l USING (process_id)
 GROUP BY p.process_id ORDER BY p.started_at
"""
_LINES = """
SELECT l.process_id, l.node, l.port, l.protected, l.status, count(b.burn_in_id) AS burn_ins, max(b.rounds) AS rounds
  FROM inventory_lines l LEFT JOIN inventory_burn_ins b USING (line_id)
 GROUP BY l.line_id
"""
_LOG = (
    "SELECT process_id, sequence, kind, name, status, note, consumer FROM process_steps ORDER BY process_id, sequence"
)
_HALFWAY = """
SELECT c.name FROM processes p JOIN consumers c ON c.consumer_id = p.claimed_by
 WHERE p.step = $1 AND p.claimed_at < now() - interval '0.5 s' ORDER BY p.claimed_at LIMIT 1
"""
_CLAIMED_BY = """
SELECT p.process_id FROM processes p JOIN consumers c ON c.consumer_id = p.claimed_by WHERE c.name = $1
"""


@dataclass(frozen=True, slots=True)
class Process:
    """One process in figures.

    Args:
        attempts: how often a step of it was begun.
        lost: how many of these ended with the death of their consumer.
    """

    process_id: UUID
    customer: str
    protection: bool
    status: str
    step: str | None
    started_by: str
    attempts: int
    seconds: float
    steps: int
    skipped: int
    tried_again: int
    lost: int


class Books:
    """A few connections for reading."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def processes(self) -> list[Process]:
        """All processes, the oldest first."""
        found = []
        for row in await self._pool.fetch(_PROCESSES):
            values = dict(row)
            found.append(Process(seconds=values.pop("took").total_seconds(), **values))
        return found

    async def lines(self) -> list[dict[str, Any]]:
        """The inventory."""
        return [dict(row) for row in await self._pool.fetch(_LINES)]

    async def log(self) -> list[dict[str, Any]]:
        """The log of all processes."""
        return [dict(row) for row in await self._pool.fetch(_LOG)]

    async def suspended(self) -> list[UUID]:
        """Processes that wait for input."""
        rows = await self._pool.fetch("SELECT process_id FROM processes WHERE status = 'suspended'")
        return [row["process_id"] for row in rows]

    async def callbacks(self) -> list[dict[str, Any]]:
        """What became of the callback tokens."""
        query = "SELECT process_id, status, token IS NULL AS forgotten, progress IS NOT NULL AS progress FROM callbacks"
        return [dict(row) for row in await self._pool.fetch(query)]

    async def customer(self, process_id: str) -> str:
        """Whose process it is."""
        query = "SELECT state ->> 'customer' FROM processes WHERE process_id = $1"
        return str(await self._pool.fetchval(query, UUID(process_id)))

    async def halfway(self, step: str) -> str | None:
        """The name (host:pid) of a consumer that has been running this step for half a second."""
        name: str | None = await self._pool.fetchval(_HALFWAY, step)
        return name

    async def claimed_by(self, consumer: str) -> list[UUID]:
        """Which processes a consumer was at."""
        return [row["process_id"] for row in await self._pool.fetch(_CLAIMED_BY, consumer)]
