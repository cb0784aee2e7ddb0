"""Read one process with everything that belongs to it, as JSON that PostgreSQL writes.

States and logs may have many megabytes. They are never turned into Python's objects here, so the event loop stays free, and a
value that Python cannot read does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.bases import WHOLE
from orchestrator.db.processes.secrets import hiding, write_secret_keys
from orchestrator.errors import NotFoundError

# One statement, so that everything is from one snapshot.
_READ = text(
    f"""
    SELECT p.sequence, p.position, p.step, p.status, p.claimed_at, p.workflow, p.is_task,
           jsonb_build_object(
               'process_id', p.process_id, 'workflow_id', w.workflow_id, 'workflow_name', w.name, 'workflow_target', w.target,
               'workflow_description', w.description, 'is_task', p.is_task, 'last_status', p.status, 'last_step', p.step,
               'created_by', p.started_by, 'parent_id', p.parent_id, 'actor', p.actor,
               'claimed', p.claimed_by IS NOT NULL, 'noted_by', p.noted_by,
               'noted_at', p.noted_at, 'assignee', p.assignee, 'started_at', p.started_at,
               'last_modified_at', p.updated_at, 'note', p.note, 'sequence', p.sequence, 'attempt', p.attempt,
               'due_at', p.due_at,
               'failed_reason', failure.failure ->> 'message', 'traceback', failure.failure ->> 'traceback')::text AS head,
           {hiding(WHOLE, "p.workflow")}::text AS state,
           (SELECT string_agg(
                jsonb_build_object(
                    'sequence', s.sequence, 'kind', s.kind, 'name', s.name, 'status', s.status, 'attempt', s.attempt,
                    'position', s.position, 'started_at', s.started_at, 'completed_at', s.finished_at, 'created_by', s.author,
                    'consumer', s.consumer, 'state_delta', {hiding("s.delta", "p.workflow")},
                    'removed', coalesce(s.removed, '{{}}'),
                    'failure', s.failure, 'note', s.note)::text, ',' ORDER BY s.sequence)
              FROM process_steps s WHERE s.process_id = p.process_id AND s.sequence > :after) AS steps,
           coalesce((SELECT s.name = p.step FROM process_steps s WHERE s.process_id = p.process_id AND s.kind = 'step'
                      ORDER BY s.sequence DESC LIMIT 1), false) AS has_entry,
           (SELECT coalesce(jsonb_agg(to_jsonb(one) - 'touched_at' ORDER BY one.touched_at, one.subscription_id), '[]')::text
              FROM (SELECT s.subscription_id, s.description, s.status, s.insync, s.customer_id, ps.created_at AS touched_at,
                           jsonb_build_object('product_id', r.product_id, 'name', r.name, 'product_type', r.product_type,
                                              'tag', r.tag) AS product
                      FROM processes_subscriptions ps JOIN subscriptions s USING (subscription_id)
                      JOIN products r USING (product_id)
                     WHERE ps.process_id = p.process_id
                     ORDER BY ps.created_at, ps.subscription_id LIMIT 1000) one) AS subscriptions,
           (SELECT jsonb_build_object('step', c.step, 'status', c.status, 'progress', c.progress, 'deadline', c.deadline,
                                      'created_at', c.created_at)::text
              FROM callbacks c WHERE c.process_id = p.process_id AND c.status IN ('open', 'parked')) AS callback
      FROM processes p
      JOIN workflows w USING (workflow_id)
      LEFT JOIN LATERAL (SELECT s.failure FROM process_steps s
                          WHERE s.process_id = p.process_id AND s.failure IS NOT NULL
                            AND p.status IN ('failed', 'waiting', 'api_unavailable', 'inconsistent_data')
                          ORDER BY s.sequence DESC LIMIT 1) failure ON true
     WHERE p.process_id = :process_id
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class ProcessDetail:
    """A process with its log; the last five are JSON texts.

    Args:
        has_entry: whether the newest entry about a step is about the present one.
        steps: the entries of the log, separated by commas.
        callback: what it waits for; never the token.
    """

    workflow: str
    status: str
    step: str | None
    position: int
    claimed_at: datetime | None
    has_entry: bool
    head: str
    state: str
    steps: str
    subscriptions: str
    callback: str | None


async def read_detail(session: AsyncSession, process_id: UUID, after: int = -1) -> ProcessDetail:
    """Return one process with its log.

    Args:
        after: the number of the newest entry that the caller has already; only newer ones are read.

    Raises:
        NotFoundError.
    """
    row = (
        await session.execute(_READ, {"process_id": process_id, "after": after, "secrets": write_secret_keys()})
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return ProcessDetail(
        row.workflow,
        row.status,
        row.step,
        row.position,
        row.claimed_at,
        row.has_entry,
        row.head,
        row.state,
        row.steps or "",
        row.subscriptions,
        row.callback,
    )
