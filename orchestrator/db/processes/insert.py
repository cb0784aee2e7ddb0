"""Store new processes: one statement reads what a start needs to know, one inserts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.callbacks import change_callback
from orchestrator.db.processes.advance import build_log_row, wake_expression
from orchestrator.db.processes.outbox import ANNOUNCE_SOON
from orchestrator.db.session import get_driver, to_jsonb
from orchestrator.db.status import IS_PAUSED, REGISTERED
from orchestrator.engine.decide import Decision

_START_FACTS = text(
    f"""
    SELECT (SELECT workflow_id FROM workflows WHERE name = :workflow AND deleted_at IS NULL) AS workflow_id,
           {IS_PAUSED} AS paused, o.process_id, o.request_digest, {REGISTERED} AS registered,
           EXISTS (SELECT FROM workflow_plans WHERE workflow = :workflow AND fingerprint = :plan) AS knows_plan
      FROM (SELECT CAST(:workflow AS text) AS workflow) AS p LEFT JOIN processes o ON o.request_key = :key
    """  # noqa: S608 - built from constants
)

_INSERT = f"""
WITH made AS (
    INSERT INTO processes (process_id, position, step, entered, status, state, sequence, actor, due_at, wake_at,
                           announce_at, workflow_id, workflow, is_task, started_by, request_key, request_digest, attempt,
                           failures, lost, rewinds, assignee, plan)
    VALUES ($1, $2, $3, $4, $5::text, $6::text::jsonb, $7, $8, now() + $9::float8 * interval '1 second',
            {wake_expression("$5", "$9")}, CASE WHEN $5::text <> 'running' THEN {ANNOUNCE_SOON} END,
            $10, $11, $12, $13, $14, $15, 0, 0, 0, 0, $28, $29)
    ON CONFLICT (request_key) DO NOTHING
    RETURNING process_id
), logged AS (
    INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, failure, note, author,
                               started_at, finished_at)
    SELECT made.process_id, e.sequence, e.kind, e.name, e.position, e.attempt, e.status, e.delta::jsonb, e.failure::jsonb,
           e.note, e.author, now(), now()
      FROM made, unnest($16::int[], $17::text[], $18::text[], $19::int[], $20::int[], $21::text[], $22::text[],
                        $23::text[], $24::text[], $25::text[], $26::text[], $27::bool[])
                 AS e(sequence, kind, name, position, attempt, status, delta, removed, failure, note, author, ran)
)
SELECT now() FROM made
"""  # noqa: S608 - built from constants


@dataclass(frozen=True, slots=True)
class StartFacts:
    """What the database knows before a start: the workflow's row, whether the engine is paused, and which process has the key.

    Args:
        registered: the fingerprint of the workflow's registered plan.
        knows_plan: whether any program has registered the plan of the one that asks.
    """

    workflow_id: UUID | None
    paused: bool
    process_id: UUID | None
    request_digest: bytes | None
    registered: str | None
    knows_plan: bool


async def read_start_facts(
    session: AsyncSession, workflow: str, request_key: str | None, plan: str | None = None
) -> StartFacts:
    """Return all that a start needs to know, in one round trip; ``plan`` is the fingerprint that the program has."""
    row = (await session.execute(_START_FACTS, {"workflow": workflow, "key": request_key, "plan": plan})).one()
    return StartFacts(
        row.workflow_id, bool(row.paused), row.process_id, row.request_digest, row.registered, row.knows_plan
    )


async def insert_process(
    session: AsyncSession,
    decision: Decision,
    *,
    workflow_id: UUID,
    is_task: bool,
    request_key: str | None,
    request_digest: bytes | None,
    due_in: float | None,
) -> datetime | None:
    """Store a new process with its first log rows, in one statement.

    Returns:
        The database's time, or ``None`` when another process has the same ``request_key``; then nothing is stored.
    """
    process = decision.process
    connection = await get_driver(session)
    at: datetime | None = await connection.fetchval(
        _INSERT,
        process.process_id,
        process.position,
        process.step,
        process.entered,
        process.status.value,
        to_jsonb(process.state),
        process.sequence,
        process.actor,
        due_in,
        workflow_id,
        process.workflow,
        is_task,
        process.started_by,
        request_key,
        request_digest,
        *map(list, zip(*(build_log_row(process.process_id, entry)[1:] for entry in decision.entries), strict=True)),
        process.assignee,
        process.plan,
    )
    if at is not None and decision.callback is not None:
        await change_callback(connection, process.process_id, decision.callback)
    return at
