"""Storing decisions: the two statements of every step, written for one round trip each.

``claim`` fences a step and fetches what is needed to run it; ``advance`` stores a decision – position, status, state, log
rows, callback – if and only if nobody else has moved the process since. Both are plain SQL over asyncpg, because they are
run for every step; ``advance`` also runs on the connection of a session, inside its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import asyncpg
from pydantic_core import from_json, to_json
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Driver, driver
from orchestrator.db.step_session import MARK_SETTING
from orchestrator.db.tables import ProcessRow
from orchestrator.engine.decision import CloseCallback, Decision, Entry, OpenCallback, ParkCallback
from orchestrator.engine.events import Failure
from orchestrator.engine.process import Process
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON, ProcessStatus, State

_COLUMNS = """process_id, workflow, status, position, step, entered, attempt, sequence, failures, lost, rewinds,
       state::text AS state, started_by, actor"""

ANNOUNCE_AFTER = 5
"""Seconds after which a process at rest is looked at if it is not known by then that its events were published."""


# What is at rest is woken by the indexed column wake_at; what runs is found through its status, so that a step changes no
# indexed column. statement_timestamp(), not now(): a step's transaction may have begun long before its outcome is stored.
def wake_expression(status: str, due_in: str) -> str:
    """SQL for ``wake_at``, given the parameters that hold the status and the seconds until the process is due."""
    due = f"statement_timestamp() + {due_in}::float8 * interval '1 second'"
    soon = f"statement_timestamp() + interval '{ANNOUNCE_AFTER} seconds'"
    return f"CASE WHEN {status}::text <> 'running' THEN LEAST({soon}, {due}) END"


# A claim need not survive a crash of the server: losing it only means that the command is published again, and a commit is
# fenced by the claiming consumer's id as well as by the attempt. So it may skip the wait for the disk. The setting is made
# in the RETURNING list, which runs once, for the claimed row, inside the statement's own transaction.
_CLAIM = f"""
UPDATE processes
   SET attempt = attempt + 1, claimed_by = $4, claimed_at = now(), dispatches = 0,
       announced = GREATEST(announced, $5)
 WHERE process_id = $1 AND status = 'running' AND position = $2 AND attempt = $3 AND claimed_by IS NULL
   AND NOT EXISTS (SELECT FROM engine_settings WHERE global_lock)
   AND EXISTS (SELECT FROM consumers WHERE consumer_id = $4)
RETURNING {_COLUMNS}, claimed_at, set_config('synchronous_commit', 'off', true)
"""  # noqa: S608 - built from constants

_HELD = f"SELECT {_COLUMNS}, claimed_at FROM processes WHERE status = 'running' AND claimed_by = $1"  # noqa: S608 - built from constants

_MOVE = f"""
moved AS (
    UPDATE processes
       SET position = $2, step = $3, entered = $4, status = $5::text, state = (state || $6::text::jsonb) - $7::text[],
           sequence = $8, failures = $9, lost = $10, rewinds = $11, actor = $12,
           claimed_by = NULL, claimed_at = NULL, dispatches = 0,
           due_at = statement_timestamp() + $13::float8 * interval '1 second', wake_at = {wake_expression("$5", "$13")},
           updated_at = statement_timestamp()
     WHERE process_id = $1 AND sequence = $14 AND attempt = $15
       AND ($16::uuid IS NULL OR (claimed_by = $16 AND status = 'running'))
       AND ($17::text IS NULL OR current_setting('{MARK_SETTING}', true) = $17)
    RETURNING process_id
)"""  # noqa: S608 - built from constants

_LOG = """
logged AS (
    INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, removed, failure, note,
                               author, consumer, started_at, finished_at)
    SELECT moved.process_id, e.sequence, e.kind, e.name, e.position, e.attempt, e.status, e.delta::jsonb,
           CASE WHEN e.removed THEN $7::text[] END, e.failure::jsonb, e.note, e.author,
           CASE WHEN e.ran THEN $18::text END, CASE WHEN e.ran THEN COALESCE($19::timestamptz, statement_timestamp())
           ELSE statement_timestamp() END, statement_timestamp()
      FROM moved, unnest($20::int[], $21::text[], $22::text[], $23::int[], $24::int[], $25::text[], $26::text[],
                         $27::bool[], $28::text[], $29::text[], $30::text[], $31::bool[])
                  AS e(sequence, kind, name, position, attempt, status, delta, removed, failure, note, author, ran)
)"""

_ADVANCE = f"WITH {_MOVE},{_LOG} SELECT statement_timestamp() FROM moved"  # noqa: S608 - built from constants

_RETIRE_CALLBACK = """
UPDATE callbacks SET status = $2, token = NULL, closed_at = now()
 WHERE process_id = $1 AND status IN ('open', 'parked')
"""
_OPEN_CALLBACK = """
INSERT INTO callbacks (token_hash, token, process_id, position, step, status, timeout)
VALUES ($1, $2, $3, $4, $5, 'open', $6)
"""
_PARK_CALLBACK = """
UPDATE callbacks SET status = 'parked', token = NULL, deadline = statement_timestamp() + timeout * interval '1 second'
 WHERE process_id = $1 AND status = 'open'
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that this consumer, and nobody else, may commit."""

    process: Process
    consumer_id: UUID
    consumer: str
    claimed_at: datetime


def hash_token(token: str) -> bytes:
    """What the database keeps of a callback token. A 256-bit random token needs no salt and no slow hash."""
    return sha256(token.encode()).digest()


def to_text(value: JSON | State) -> str:
    """JSON for a ``jsonb`` parameter."""
    return to_json(value).decode()


async def claim(
    connection: Driver,
    process_id: UUID,
    *,
    position: int,
    attempt: int,
    consumer_id: UUID,
    consumer: str,
    announced: int,
) -> Claim | None:
    """Fence a step: raise the attempt and mark who runs it. ``None`` when the command is stale or the engine is paused."""
    row = await connection.fetchrow(_CLAIM, process_id, position, attempt, consumer_id, announced)
    if row is None:
        return None
    return Claim(_process(row), consumer_id, consumer, row["claimed_at"])


async def held(connection: Driver, consumer_id: UUID, consumer: str) -> list[Claim]:
    """Everything that a consumer has claimed, as the database sees it."""
    rows = await connection.fetch(_HELD, consumer_id)
    return [Claim(_process(row), consumer_id, consumer, row["claimed_at"]) for row in rows]


async def advance(
    connection: Driver,
    before: Process,
    decision: Decision,
    *,
    due_in: float | None,
    claim: Claim | None = None,
    mark: str | None = None,
) -> datetime | None:
    """Store a decision in the connection's transaction, or in one of its own when there is none.

    Args:
        before: the process as it was when the decision was made; if anybody has moved it since, nothing is stored.
        due_in: seconds until somebody must look again; ``None`` for never.
        claim: given by a consumer: it must still hold the process.
        mark: given with a step's session: the transaction must still be the one that the mark was set in.

    Returns:
        The database's time, or ``None`` when the process was moved by somebody else: then roll back.
    """
    arguments = _advance_arguments(before, decision, due_in, claim, mark)
    if decision.callback is None:
        at: datetime | None = await connection.fetchval(_ADVANCE, *arguments)
        return at
    async with connection.transaction():
        at = await connection.fetchval(_ADVANCE, *arguments)
        if at is not None:
            await change_callback(connection, before.process_id, decision)
    return at


async def load(session: AsyncSession, process_id: UUID, *, lock: bool = False) -> Process:
    """Read a process; with ``lock``, keep others from moving it until the transaction ends.

    Locks are taken in the order process, then callback, everywhere.

    Raises:
        NotFoundError: there is none.
    """
    # FOR NO KEY UPDATE: log rows of other transactions may still refer to the process while it is held.
    query = select(ProcessRow).where(ProcessRow.process_id == process_id).execution_options(populate_existing=True)
    row = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return from_row(row)


async def store(session: AsyncSession, before: Process, decision: Decision, *, due_in: float | None) -> datetime:
    """Store a decision about a process that :func:`load` has locked in this session's transaction."""
    at = await advance(await driver(session), before, decision, due_in=due_in)
    assert at is not None, "the process was locked"  # noqa: S101 - a programming error, not a user's
    return at


def from_row(row: ProcessRow) -> Process:
    """The core's view of a row."""
    return Process(
        process_id=row.process_id,
        workflow=row.workflow,
        status=ProcessStatus(row.status),
        position=row.position,
        step=row.step,
        entered=row.entered,
        attempt=row.attempt,
        sequence=row.sequence,
        failures=row.failures,
        lost=row.lost,
        rewinds=row.rewinds,
        state=row.state,
        started_by=row.started_by,
        actor=row.actor,
    )


def blank(process: Process) -> Process:
    """A process before anything has happened to it."""
    return Process(
        process_id=process.process_id,
        workflow=process.workflow,
        status=ProcessStatus.CREATED,
        position=0,
        step=None,
        attempt=0,
        sequence=0,
        state={},
        started_by=process.started_by,
        actor=process.actor,
    )


async def committed(connection: Driver, process_id: UUID, attempt: int) -> bool:
    """Whether an attempt's outcome is in the log: the answer when a commit's own answer was lost."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM process_steps WHERE process_id = $1 AND attempt = $2 AND consumer IS NOT NULL)",
        process_id,
        attempt,
    )
    return found


async def callback_token(connection: Driver, process_id: UUID) -> str | None:
    """The plaintext of the token that the action of a callback step hands out."""
    token: str | None = await connection.fetchval(
        "SELECT token FROM callbacks WHERE process_id = $1 AND status = 'open'", process_id
    )
    return token


async def change_callback(connection: Driver, process_id: UUID, decision: Decision) -> None:
    """Store what a decision says about the process's callback."""
    match decision.callback:
        case OpenCallback(position, step, token, timeout):
            await connection.execute(_RETIRE_CALLBACK, process_id, "superseded")
            seconds = None if timeout is None else timeout.total_seconds()
            await connection.execute(_OPEN_CALLBACK, hash_token(token), token, process_id, position, step, seconds)
        case ParkCallback():
            await connection.execute(_PARK_CALLBACK, process_id)
        case CloseCallback(outcome):
            await connection.execute(_RETIRE_CALLBACK, process_id, outcome)
        case None:
            pass


def _advance_arguments(
    before: Process, decision: Decision, due_in: float | None, claim: Claim | None, mark: str | None
) -> tuple[object, ...]:
    process, entries = decision.process, decision.entries
    delta: State = {}
    removed: set[str] = set()
    for entry in entries:
        delta.update(entry.delta)
        removed = (removed - entry.delta.keys()) | set(entry.removed)
    return (
        process.process_id,
        process.position,
        process.step,
        process.entered,
        process.status.value,
        to_text(delta),
        sorted(removed),
        process.sequence,
        process.failures,
        process.lost,
        process.rewinds,
        process.actor,
        due_in,
        before.sequence,
        before.attempt,
        None if claim is None else claim.consumer_id,
        mark,
        None if claim is None else claim.consumer,
        None if claim is None else claim.claimed_at,
        *log_columns(entries),
    )


def log_columns(entries: tuple[Entry, ...]) -> tuple[list[object], ...]:
    """Log entries as the arrays that a statement unnests into rows."""
    return (
        [entry.sequence for entry in entries],
        [entry.kind.value for entry in entries],
        [entry.name for entry in entries],
        [entry.position for entry in entries],
        [entry.attempt for entry in entries],
        [entry.status.value for entry in entries],
        [to_text(entry.delta) if entry.delta else "{}" for entry in entries],
        [bool(entry.removed) for entry in entries],
        [None if entry.failure is None else to_text(failure_document(entry.failure)) for entry in entries],
        [entry.note for entry in entries],
        [entry.author for entry in entries],
        [entry.ran for entry in entries],
    )


def failure_document(failure: Failure) -> dict[str, JSON]:
    """A failure as it is stored and shown."""
    return {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "details": failure.details,
    }


def _process(row: asyncpg.Record) -> Process:
    return Process(
        process_id=row["process_id"],
        workflow=row["workflow"],
        status=ProcessStatus(row["status"]),
        position=row["position"],
        step=row["step"],
        entered=row["entered"],
        attempt=row["attempt"],
        sequence=row["sequence"],
        failures=row["failures"],
        lost=row["lost"],
        rewinds=row["rewinds"],
        state=from_json(row["state"]),
        started_by=row["started_by"],
        actor=row["actor"],
    )
