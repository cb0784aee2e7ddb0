"""Find the processes that an operator wants to act on together."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.db.session import get_driver


@dataclass(frozen=True, slots=True)
class Match:
    """A process that matches, and its status when it was found."""

    process_id: UUID
    workflow: str
    status: str
    sequence: int


async def find_matching(session: AsyncSession, wanted: ProcessFilter, limit: int) -> tuple[int, list[Match]]:
    """Return how many processes match, and the first ``limit`` of them, the oldest first."""
    condition, values = wanted.where()
    connection = await get_driver(session)
    count = await connection.fetchval(f"SELECT count(*) FROM processes WHERE {condition}", *values)  # noqa: S608
    rows = await connection.fetch(
        f"SELECT process_id, workflow, status, sequence FROM processes WHERE {condition}"  # noqa: S608
        f" ORDER BY started_at, process_id LIMIT ${len(values) + 1}",
        *values,
        limit,
    )
    return count or 0, [Match(*row) for row in rows]
