"""Read the logs of several processes at once, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.secrets import hiding, write_secret_keys

_READ = text(
    """
    SELECT p.process_id, p.workflow, p.status, p.step, p.position, p.claimed_at,
           coalesce((SELECT s.name = p.step FROM process_steps s WHERE s.process_id = p.process_id AND s.kind = 'step'
                      ORDER BY s.sequence DESC LIMIT 1), false) AS has_entry,
           (SELECT s.failure ->> 'traceback' FROM process_steps s
             WHERE s.process_id = p.process_id AND s.failure IS NOT NULL
               AND p.status IN ('failed', 'waiting', 'api_unavailable', 'inconsistent_data')
             ORDER BY s.sequence DESC LIMIT 1) AS traceback
      FROM processes p
     WHERE p.process_id = ANY(CAST(:ids AS uuid[]))
    """
)
# Large values as text, because a thread parses them.
_ENTRIES = text(
    f"""
    SELECT s.process_id, s.sequence, s.kind, s.name, s.status, s.started_at, s.finished_at,
           {hiding("s.delta", "p.workflow")}::text AS delta, s.failure::text AS failure
      FROM process_steps s JOIN processes p USING (process_id)
     WHERE s.process_id = ANY(CAST(:ids AS uuid[]))
     ORDER BY s.process_id, s.sequence
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class Place:
    """The status and present step of a process.

    Args:
        has_entry: whether the newest entry about a step is about the present one.
        traceback: of its newest failure, until it is retried.
    """

    workflow: str
    status: str
    step: str | None
    position: int
    claimed_at: datetime | None
    has_entry: bool
    traceback: str | None


async def read_places(session: AsyncSession, process_ids: Sequence[UUID]) -> dict[UUID, Place]:
    """Return the status and present step of these processes, in one statement."""
    rows = (await session.execute(_READ, {"ids": list(process_ids)})).mappings()
    return {row["process_id"]: Place(**{name: row[name] for name in Place.__slots__}) for row in rows}


async def read_entries(session: AsyncSession, process_ids: Sequence[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    """Return the logs of these processes in one statement; ``delta`` and ``failure`` are JSON texts."""
    found: dict[UUID, list[dict[str, Any]]] = {one: [] for one in process_ids}
    for row in (await session.execute(_ENTRIES, {"ids": list(process_ids), "secrets": write_secret_keys()})).mappings():
        found[row["process_id"]].append(dict(row))
    return found
