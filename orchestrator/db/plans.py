"""The plans of workflows that programs have registered. The one with the highest number is the registered plan of its workflow.

No clock decides which plan is newer: a program that starts appends its plan if no row has it, so a program that starts again
changes nothing, however old it is. To go back, an operator appends an older plan once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import to_jsonb
from orchestrator.engine.plan import Plan
from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.types import JSON

# Two programs that start at the same time must not choose the same number. The key is that of no other lock.
_LOCK = text("SELECT pg_advisory_xact_lock(8317600021)")
_ADD = text(
    """
    INSERT INTO workflow_plans (workflow, number, fingerprint, steps, registered_by)
    SELECT w.workflow, COALESCE((SELECT max(number) FROM workflow_plans p WHERE p.workflow = w.workflow), 0) + 1,
           w.fingerprint, w.steps::jsonb, :author
      FROM unnest(CAST(:workflows AS text[]), CAST(:fingerprints AS text[]), CAST(:steps AS text[]))
             AS w(workflow, fingerprint, steps)
     WHERE NOT EXISTS (SELECT FROM workflow_plans p WHERE p.workflow = w.workflow AND p.fingerprint = w.fingerprint)
    RETURNING workflow, number, fingerprint
    """
)
_ACTIVATE = text(
    """
    INSERT INTO workflow_plans (workflow, number, fingerprint, steps, registered_by)
    SELECT workflow, (SELECT max(number) FROM workflow_plans WHERE workflow = :workflow) + 1, fingerprint, steps, :author
      FROM workflow_plans WHERE workflow = :workflow AND number = :number
    RETURNING number
    """
)
_READ_REGISTERED = text(
    """
    SELECT DISTINCT ON (workflow) workflow, number, fingerprint FROM workflow_plans
     WHERE CAST(:workflow AS text) IS NULL OR workflow = :workflow
     ORDER BY workflow, number DESC
    """
)
_READ_STEPS = text(
    """
    SELECT number, steps FROM workflow_plans WHERE workflow = :workflow AND fingerprint = :fingerprint
     ORDER BY number DESC LIMIT 1
    """
)
_LIST = text(
    """
    SELECT w.workflow, w.number, w.fingerprint, w.steps, w.registered_by, w.registered_at,
           w.number = max(w.number) OVER (PARTITION BY w.workflow) AS is_registered, COALESCE(p.unfinished, 0) AS unfinished
      FROM workflow_plans w
      LEFT JOIN (SELECT workflow, plan, count(*) AS unfinished FROM processes
                  WHERE status NOT IN ('completed', 'aborted') GROUP BY workflow, plan) AS p
             ON p.workflow = w.workflow AND p.plan = w.fingerprint
     WHERE CAST(:workflow AS text) IS NULL OR w.workflow = :workflow
     ORDER BY w.workflow, w.number DESC
    """
)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A plan by its number among the plans of its workflow, and its fingerprint."""

    number: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan as ``orchestrator plans list`` shows it.

    Args:
        steps: what the fingerprint is made of.
        is_registered: whether it is the one to which processes are moved.
        unfinished: processes that have this plan and may still move.
    """

    workflow: str
    number: int
    fingerprint: str
    steps: Sequence[dict[str, JSON]]
    registered_by: str
    registered_at: datetime
    is_registered: bool
    unfinished: int


async def add_plans(session: AsyncSession, plans: Mapping[str, Plan], author: str) -> dict[str, Numbered]:
    """Append the plans whose fingerprints no row has; return those. They are the registered ones from the commit on."""
    await session.execute(_LOCK)
    rows = await session.execute(
        _ADD,
        {
            "author": author,
            "workflows": list(plans),
            "fingerprints": [plan.fingerprint for plan in plans.values()],
            "steps": [to_jsonb(list(plan.outline)) for plan in plans.values()],
        },
    )
    return {row.workflow: Numbered(row.number, row.fingerprint) for row in rows}


async def read_registered(session: AsyncSession) -> dict[str, Numbered]:
    """Return the registered plan of each workflow."""
    rows = await session.execute(_READ_REGISTERED, {"workflow": None})
    return {row.workflow: Numbered(row.number, row.fingerprint) for row in rows}


async def find_registered(session: AsyncSession, workflow: str) -> Numbered | None:
    """Return the registered plan of a workflow; ``None`` when no program has registered one."""
    row = (await session.execute(_READ_REGISTERED, {"workflow": workflow})).one_or_none()
    return None if row is None else Numbered(row.number, row.fingerprint)


async def read_steps(session: AsyncSession, workflow: str, fingerprint: str) -> tuple[int, list[dict[str, Any]]] | None:
    """Return the newest number and the steps of a plan; ``None`` when no program has registered it."""
    row = (await session.execute(_READ_STEPS, {"workflow": workflow, "fingerprint": fingerprint})).one_or_none()
    return None if row is None else (row.number, row.steps)


async def list_plans(session: AsyncSession, workflow: str | None = None) -> list[StoredPlan]:
    """Return all plans, or those of one workflow, by workflow and the newest first."""
    rows = await session.execute(_LIST, {"workflow": workflow})
    return [StoredPlan(**row) for row in rows.mappings()]


async def activate_plan(session: AsyncSession, workflow: str, number: int, author: str) -> int:
    """Make an older plan the registered one again, by appending it; return its new number.

    Raises:
        NotFoundError: the workflow has no plan of that number.
        ConflictError: it is the registered plan.
    """
    await session.execute(_LOCK)
    registered = await find_registered(session, workflow)
    if registered is not None and registered.number == number:
        raise ConflictError(f"plan {number} of {workflow!r} is the registered one already")
    parameters = {"workflow": workflow, "number": number, "author": author}
    added: int | None = await session.scalar(_ACTIVATE, parameters)
    if added is None:
        raise NotFoundError(f"{workflow!r} has no plan {number}: 'orchestrator plans list' shows what there is")
    return added
