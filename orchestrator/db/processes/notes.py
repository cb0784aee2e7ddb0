"""Change or delete a process outside its course: its note, and whether it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# No log entry and no change of updated_at, because a note may be stored while a step runs, whose commit relies on both.
_STORE_NOTE = text(
    """
    UPDATE processes
       SET note = CAST(:note AS text), noted_by = CAST(:author AS text), noted_at = now()
     WHERE process_id = :process_id
    RETURNING process_id
    """
)
_LOCK = text(
    """
    SELECT workflow, is_task, status, announced >= sequence AS is_announced FROM processes
     WHERE process_id = :process_id FOR UPDATE
    """
)
_DELETE = text(
    """
    WITH gone AS (DELETE FROM processes WHERE process_id = :process_id RETURNING *)
    INSERT INTO deleted_processes (process_id, workflow, status, started_by, started_at, deleted_by)
    SELECT process_id, workflow, status, started_by, started_at, :author FROM gone
    """
)


@dataclass(frozen=True, slots=True)
class Deletable:
    """The facts that decide whether a process may be deleted.

    Args:
        is_announced: whether the broker has confirmed all its events.
    """

    workflow: str
    is_task: bool
    status: str
    is_announced: bool


async def store_note(session: AsyncSession, process_id: UUID, note: str | None, author: str) -> bool:
    """Replace the note on a process; return whether there is such a process."""
    values = {"process_id": process_id, "note": note, "author": author}
    return await session.scalar(_STORE_NOTE, values) is not None


async def lock_for_deletion(session: AsyncSession, process_id: UUID) -> Deletable | None:
    """Lock a process, and return the facts that decide whether it may be deleted; ``None`` when there is no such process."""
    row = (await session.execute(_LOCK, {"process_id": process_id})).one_or_none()
    return None if row is None else Deletable(*row)


async def delete_process(session: AsyncSession, process_id: UUID, author: str) -> None:
    """Delete a process with its log and callbacks, and record who did it. Changes of subscriptions stay in their history."""
    await session.execute(_DELETE, {"process_id": process_id, "author": author})
