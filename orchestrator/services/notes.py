"""Note something on a process; delete a finished task."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.notes import delete_process, lock_for_deletion, store_note
from orchestrator.errors import ConflictError, InvalidInputError, NotFoundError
from orchestrator.services.texts import check_text
from orchestrator.text import MAX_NOTE
from orchestrator.types import ProcessStatus


async def set_note(session: AsyncSession, process_id: UUID, note: str | None, user: str) -> str | None:
    """Replace the note on a process, whatever its status, and return the new one; without words the note is removed.

    Raises:
        NotFoundError.
        InvalidInputError: the note is too long, or cannot be stored.
    """
    written = (check_text(note, "the note", MAX_NOTE) if note is not None else None) or None
    if not await store_note(session, process_id, written, user):
        raise NotFoundError(f"there is no process {process_id}")
    return written


async def delete(session: AsyncSession, process_id: UUID, user: str) -> None:
    """Delete a finished task with its log. Who did it stays in the table ``deleted_processes``.

    Raises:
        NotFoundError.
        InvalidInputError: it is no task, or not finished.
        ConflictError: the broker has not confirmed all its events yet, which would be lost.
    """
    found = await lock_for_deletion(session, process_id)
    if found is None:
        raise NotFoundError(f"there is no process {process_id}")
    if not found.is_task:
        raise InvalidInputError(
            f"the process {process_id} of {found.workflow!r} is no task: only tasks are deleted, because the log of a workflow"
            " says what was done to subscriptions"
        )
    if not ProcessStatus(found.status).is_final:
        raise InvalidInputError(
            f"the task {process_id} is {found.status}: only one that is completed or aborted is deleted; abort it first"
        )
    if not found.is_announced:
        raise ConflictError(
            f"the broker has not confirmed all events of the task {process_id} yet: try again in a few seconds"
        )
    await delete_process(session, process_id, user)
