"""List the newest processes, with statements of asyncpg alone: see :mod:`orchestrator.db.connection`.

An index finds them, however many there are; :func:`list_processes` names the exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.errors import NotFoundError

if TYPE_CHECKING:
    from orchestrator.db.session import Driver


@dataclass(frozen=True, slots=True)
class ProcessSummary:
    """A process without its state.

    Args:
        claimed: whether a consumer runs its step at this moment.
        due_at: when the engine checks it again, or retries a waiting step.
        assignee: who must act on it; ``SYSTEM`` for the engine.
        note: an operator's note; ``noted_by`` and ``noted_at`` say who changed it last, and when.
        parent_id: the process whose step started it, which may have been deleted.
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


@dataclass(frozen=True, slots=True)
class TouchedSubscription:
    """A subscription that a process has created or locked."""

    subscription_id: UUID
    description: str
    customer_id: str


@dataclass(frozen=True, slots=True)
class ListedProcess:
    """A process in a list.

    Args:
        subscriptions: those that it has touched, the first one first; if they are very many, only some.
    """

    process: ProcessSummary
    subscriptions: Sequence[TouchedSubscription]


TOUCHED = 100
"""The most subscriptions of a process in a list."""

_COLUMNS = ", ".join(one.name for one in fields(ProcessSummary)).replace("claimed", "claimed_by IS NOT NULL AS claimed")

_LIST = """
SELECT {columns} FROM processes
 WHERE {condition}
 ORDER BY started_at DESC, process_id LIMIT ${limit} OFFSET ${skip}
"""
_SUBSCRIPTIONS = """
SELECT t.process_id, s.subscription_id, s.description, s.customer_id
  FROM unnest($1::uuid[]) AS listed (process_id)
 CROSS JOIN LATERAL (SELECT * FROM processes_subscriptions t WHERE t.process_id = listed.process_id
                      ORDER BY t.created_at, t.subscription_id LIMIT $2) t
  JOIN subscriptions s USING (subscription_id)
 ORDER BY t.created_at, s.subscription_id
"""
_IS_KNOWN = "SELECT EXISTS (SELECT FROM workflows WHERE name = $1)"


async def list_processes(
    connection: Driver, wanted: ProcessFilter, *, limit: int, skip: int = 0
) -> list[ListedProcess]:
    """Return the newest matching processes, newest first, by reading the index on ``started_at`` until ``limit`` are found.

    Rare statuses are found by an index of their own. When few processes are tasks, or tasks in a rare status, more of the index
    is read (at most 0.1 ms for each thousand processes).

    Raises:
        NotFoundError: the database knows no workflow of that name, not even a removed one.
    """
    condition, values = wanted.where()
    number = len(values)
    statement = _LIST.format(columns=_COLUMNS, condition=condition, limit=number + 1, skip=number + 2)
    found = [ProcessSummary(*row) for row in await connection.fetch(statement, *values, limit, skip)]
    if wanted.workflow is not None and not found and not await connection.fetchval(_IS_KNOWN, wanted.workflow):
        raise NotFoundError(
            f"the database knows no workflow {wanted.workflow!r}: 'orchestrator workflows' shows what there is"
        )
    touched: dict[UUID, list[TouchedSubscription]] = {one.process_id: [] for one in found}
    for process_id, *row in await connection.fetch(_SUBSCRIPTIONS, list(touched), TOUCHED):
        touched[process_id].append(TouchedSubscription(*row))
    return [ListedProcess(one, touched[one.process_id]) for one in found]
