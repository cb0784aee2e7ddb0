"""List the newest processes, with statements of asyncpg alone: see :mod:`orchestrator.db.connection`.

They are found by their index, however many there are; :func:`list_processes` says where that does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.errors import NotFoundError

if TYPE_CHECKING:
    from orchestrator.db.session import Driver


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """A process without its state.

    Args:
        claimed: whether a consumer runs its step at this moment.
        due_at: when the engine looks at it again, or tries a waiting step again.
        assignee: who is to act on it; ``SYSTEM`` for the engine.
        note: what an operator has noted on it; ``noted_by`` and ``noted_at`` say who has changed that last, and when.
        parent_id: the process one of whose steps has started it; that may have been deleted.
    """

    process_id: UUID
    workflow: str
    is_task: bool
    status: str
    step: str | None
    sequence: int
    started_by: str
    actor: str
    started_at: datetime
    updated_at: datetime
    claimed: bool
    due_at: datetime | None
    assignee: str
    note: str | None = None
    noted_by: str | None = None
    noted_at: datetime | None = None
    parent_id: UUID | None = None


_COLUMNS = ", ".join(one.name for one in fields(ProcessSummary)).replace("claimed", "claimed_by IS NOT NULL AS claimed")

# Removed workflows as well: the processes of a workflow that was registered again belong to several rows.
_LIST = """
SELECT {columns} FROM processes
 WHERE {conditions}
 ORDER BY started_at DESC, process_id LIMIT $1
"""
_OF_WORKFLOW = "workflow_id IN (SELECT workflow_id FROM workflows WHERE name = ${number})"
_IS_KNOWN = "SELECT EXISTS (SELECT FROM workflows WHERE name = $1)"


async def list_processes(
    connection: Driver,
    *,
    statuses: Sequence[str] = (),
    workflow: str | None = None,
    is_task: bool | None = None,
    limit: int,
) -> list[ProcessSummary]:
    """Return the newest processes that match, newest first: the index on ``started_at`` is read until ``limit`` are found.

    Rare statuses are found by their index. When few are tasks, or few have a rare pair of both, more of it is read (0.1 ms for
    each thousand processes at most).

    Raises:
        NotFoundError: the database knows no workflow of that name, not even a removed one.
    """
    wanted: dict[str, object] = {}
    if statuses:
        wanted["status = ANY(${number}::text[])"] = list(statuses)
    if workflow is not None:
        wanted[_OF_WORKFLOW] = workflow
    if is_task is not None:
        wanted["is_task = ${number}"] = is_task
    conditions = " AND ".join(one.format(number=number) for number, one in enumerate(wanted, start=2)) or "true"
    rows = await connection.fetch(_LIST.format(columns=_COLUMNS, conditions=conditions), limit, *wanted.values())
    if workflow is not None and not rows and not await connection.fetchval(_IS_KNOWN, workflow):
        raise NotFoundError(
            f"the database knows no workflow {workflow!r}: 'orchestrator workflows' shows what there is"
        )
    return [ProcessSummary(*row) for row in rows]
