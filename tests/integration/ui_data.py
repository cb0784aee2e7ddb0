"""Processes in every kind of state for the pages: made of rows, so that no program has to run."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

from orchestrator.db.session import Database

_PROCESS = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, note, noted_by)
SELECT $1, w.workflow_id, w.name, false, $3, 0, $4, true, 1, $5, 0, 0, 0, $6::text::jsonb, 'ana', 'ana', $7,
       CASE WHEN $7::text IS NOT NULL THEN 'ana' END
  FROM workflows w WHERE w.name = $2 AND w.deleted_at IS NULL
"""
_ENTRIES = """
INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at, finished_at,
                           failure)
SELECT $1, n, 'step', CASE WHEN n = $3 THEN $4 ELSE 'Step ' || n END, 0, 1, CASE WHEN n = $3 THEN $5 ELSE 'success' END,
       jsonb_build_object('key_' || n, n), 'ana', now(), now(), CASE WHEN n = $3 THEN $6::text::jsonb END
  FROM generate_series($2::int, $3::int) n
"""

FAILURE = {
    "class": "ValueError",
    "message": "no VLAN is left in ams-1",
    "traceback": "Traceback (most recent call last):\n  …",
}


async def add_process(
    database: Database,
    workflow: str = "greeting",
    status: str = "failed",
    *,
    entries: int = 2,
    step: str = "Greet",
    note: str | None = None,
) -> UUID:
    """Store a process of a registered workflow with a log, whose newest entry is a failure if it has failed."""
    process_id = uuid4()
    is_failed = status == "failed"
    state = json.dumps({"name": "ana", "tone": "kind"})
    await database.pool.execute(_PROCESS, process_id, workflow, status, step, entries, state, note)
    last = ("Greet", "failed", json.dumps(FAILURE)) if is_failed else (f"Step {entries}", "success", None)
    if entries:
        await database.pool.execute(_ENTRIES, process_id, 1, entries, *last)
    return process_id


async def add_entries(database: Database, process_id: UUID, first: int, last: int) -> None:
    """Append successful entries to the log of a process."""
    async with database.pool.acquire() as connection, connection.transaction():
        await connection.execute(_ENTRIES, process_id, first, last, f"Step {last}", "success", None)
        await connection.execute("UPDATE processes SET sequence = $2 WHERE process_id = $1", process_id, last)
