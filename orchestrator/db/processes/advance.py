"""Store decisions: the statement that ends every step, written for one round trip.

A decision – position, status, state, log rows, callback – is stored if and only if the process has not moved since the
decision was made. The statement takes many decisions about different processes at once; each is fenced on its own. It runs on
a plain connection, in a transaction of its own, or on the connection of a session, inside that transaction.

A program whose network falls silent now would keep the process locked. So the statement also bounds how long the server waits
for the commit.

On request it also claims the next step for the same consumer. Unlike a separate claim it waits for the disk, because it is one
transaction with the writes of the step that it completes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.bounds import LIMIT_FROM_HERE
from orchestrator.db.callbacks import change_callback
from orchestrator.db.parameters import Statement, Table
from orchestrator.db.processes.bases import merge, parts, read_parts
from orchestrator.db.processes.claims import Claim
from orchestrator.db.processes.outbox import ANNOUNCE_SOON
from orchestrator.db.processes.rows import RowByName
from orchestrator.db.session import Driver, get_driver, to_jsonb
from orchestrator.db.status import IS_PAUSED, REGISTERED
from orchestrator.db.step_session import MARK_SETTING
from orchestrator.engine.decision import Decision, Entry
from orchestrator.engine.events import Failure
from orchestrator.engine.process import Process, with_changes
from orchestrator.engine.values import value
from orchestrator.types import JSON, State


# The reconciler finds processes at rest by the indexed column wake_at, and running ones by their status, so that a step changes
# no indexed column. statement_timestamp(), not now(): a step's transaction may have begun long before its outcome is stored.
def wake_expression(status: str, due_in: str) -> str:
    """Return the SQL for ``wake_at``, given the SQL for the status and for the seconds until the process is due."""
    due = f"statement_timestamp() + {due_in}::float8 * interval '1 second'"
    return f"CASE WHEN {status}::text <> 'running' THEN {due} END"


# The next claim marks the events of a running process. Earlier events that are missing are read from the rows; those that the
# consumer is about to send are not missing.
_ANNOUNCE_AT = f"""
CASE WHEN d.status <> 'running' THEN LEAST(p.announce_at, {ANNOUNCE_SOON})
     WHEN p.announced < d.held_from THEN COALESCE(p.announce_at, {ANNOUNCE_SOON})
     WHEN p.announced < d.before_sequence THEN p.announce_at END
"""


def _strings(json_array: str) -> str:
    return f"CASE WHEN {json_array} IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text({json_array}::jsonb)) END"


_DECISION = {
    "process_id": "uuid",
    "position": "int",
    "step": "text",
    "entered": "bool",
    "status": "text",
    "delta": "text",
    "removed": "text",
    "sequence": "int",
    "failures": "int",
    "lost": "int",
    "interruptions": "int",
    "crashes": "int",
    "rewinds": "int",
    "actor": "text",
    "due_in": "float8",
    "before_sequence": "int",
    "before_attempt": "int",
    "claimed_by": "uuid",
    "claimed_at": "timestamptz",
    "assignee": "text",
    "plan": "text",
    "held_from": "int",
    "workflow": "text",
    "goes_on": "bool",
    "base": "int",
}
ENTRY_COLUMNS = {
    "process_id": "uuid",
    "sequence": "int",
    "kind": "text",
    "name": "text",
    "position": "int",
    "attempt": "int",
    "status": "text",
    "delta": "text",
    "removed": "text",
    "failure": "text",
    "note": "text",
    "author": "text",
    "ran": "bool",
}


_CONSUMER, _MARK, _FIRST = 1, 2, 3

# Whether the next step is claimed is decided once for each decision, by the conditions of a claim. The consumer's heartbeat must
# also be recent: one that was frozen in a step must not go on with the next. The new row stands in for ``processes AS p``, of
# which only the workflow is read.
_CLAIMS = f"""
p.goes_on AND NOT {IS_PAUSED}
AND EXISTS (SELECT FROM consumers AS c
             WHERE c.consumer_id = p.claimed_by
               AND c.seen_at >= statement_timestamp() - c.presumed_dead_after * interval '1 second')
AND p.plan = COALESCE({REGISTERED}, p.plan)
"""


# An entry about a step that nobody has claimed does not move the process.
def _store(decisions: Table, entries: Table) -> str:
    """Return the statement: a row of parameters for each decision, and one for each entry of the log."""
    return f"""
WITH d AS MATERIALIZED (
    SELECT p.*, {_CLAIMS} AS claims, {_strings("p.removed")} AS removed_keys FROM {decisions("p", _DECISION, _FIRST)}
), moved AS (
    UPDATE processes AS p
       SET position = d.position, step = d.step, entered = d.entered, status = d.status,
           {merge("d.delta", "d.removed_keys", "d.sequence")},
           sequence = d.sequence, failures = d.failures, lost = d.lost, interruptions = d.interruptions,
           crashes = d.crashes, rewinds = d.rewinds, actor = d.actor, assignee = d.assignee, plan = d.plan,
           attempt = p.attempt + d.claims::int, claimed_by = CASE WHEN d.claims THEN d.claimed_by END,
           claimed_at = CASE WHEN d.claims THEN statement_timestamp() END, dispatches = 0,
           due_at = statement_timestamp() + d.due_in * interval '1 second', wake_at = {wake_expression("d.status", "d.due_in")},
           announce_at = {_ANNOUNCE_AT},
           updated_at = CASE WHEN p.status = 'running' AND p.claimed_by IS NULL AND d.status = 'running'
                             THEN p.updated_at ELSE statement_timestamp() END
      FROM d
     WHERE p.process_id = d.process_id AND p.sequence = d.before_sequence AND p.attempt = d.before_attempt
       AND (d.claimed_by IS NULL OR (p.claimed_by = d.claimed_by AND p.status = 'running'))
       AND (${_MARK}::text IS NULL OR current_setting('{MARK_SETTING}', true) = ${_MARK})
    RETURNING p.process_id, d.claimed_at, p.announced, d.claims, {parts("d.base", "d.claims")}
), logged AS (
    INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, removed, failure, note,
                               author, consumer, started_at, finished_at)
    SELECT e.process_id, e.sequence, e.kind, e.name, e.position, e.attempt, e.status, e.delta::jsonb,
           {_strings("e.removed")}, e.failure::jsonb, e.note, e.author,
           CASE WHEN e.ran THEN ${_CONSUMER}::text END,
           CASE WHEN e.ran THEN COALESCE(moved.claimed_at, statement_timestamp()) ELSE statement_timestamp() END,
           statement_timestamp()
      FROM moved JOIN {entries("e", ENTRY_COLUMNS, _FIRST + len(_DECISION))} USING (process_id)
)
SELECT process_id, statement_timestamp() AS at, announced, claims, state, base_sequence, base, {LIMIT_FROM_HERE}
  FROM moved
"""  # noqa: S608 - built from constants


_ADVANCE = Statement(_store)


@value(frozen=True, slots=True)
class Advance:
    """A decision to store.

    Args:
        before: the process when the decision was made; if it has moved since, nothing is stored.
        due_in: seconds until the reconciler must check it again; ``None`` for never.
        claim: the claim of the consumer that stores the decision; if it was lost, nothing is stored.
        goes_on: whether this consumer claims the next step, if that is allowed.
        held_from: the consumer holds all log entries after this one and will send them; default the newest one before.
    """

    before: Process
    decision: Decision
    due_in: float | None
    claim: Claim | None = None
    goes_on: bool = False
    held_from: int | None = None


@value(frozen=True, slots=True)
class Receipt:
    """Confirms that a decision is stored: the database's time, and up to which log entry the events were announced then.

    Args:
        following: the claim of the next step, if it was requested and granted.
    """

    at: datetime
    announced: int
    following: Claim | None = None


async def advance_many(
    connection: Driver, advances: Sequence[Advance], *, mark: str | None = None
) -> list[Receipt | None]:
    """Store decisions about different processes that change no callbacks, in one statement.

    Args:
        mark: the mark of a step's session; nothing is stored unless the transaction is the one in which the mark was set.

    Returns:
        For each a receipt, or ``None`` when the process has moved since.
    """
    # In the same order everywhere, so that two programs that store decisions about the same processes cannot deadlock.
    ordered = sorted(advances, key=lambda one: one.before.process_id)
    decisions = [_row(one) for one in ordered]
    entries = [build_log_row(one.before.process_id, entry) for one in ordered for entry in one.decision.entries]
    consumer = next((one.claim.consumer for one in ordered if one.claim is not None), None)
    query, parameters = _ADVANCE.write(decisions, entries)
    rows = await connection.fetch(query, consumer, mark, *parameters)
    stored = {row["process_id"]: row for row in rows}
    return [_receive(one, stored.get(one.before.process_id)) for one in advances]


async def advance(connection: Driver, one: Advance, *, mark: str | None = None) -> Receipt | None:
    """Store a decision in the connection's transaction, or in one of its own when there is none.

    Returns:
        A receipt, or ``None`` when the process has moved since: then roll back.
    """
    if one.decision.callback is None:
        return (await advance_many(connection, [one], mark=mark))[0]
    async with connection.transaction():
        (receipt,) = await advance_many(connection, [one], mark=mark)
        if receipt is not None:
            await change_callback(connection, one.before.process_id, one.decision.callback)
    return receipt


async def is_committed(connection: Driver, process_id: UUID, attempt: int) -> bool:
    """Return whether an attempt's outcome is in the log, when the answer to the commit was lost."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM process_steps WHERE process_id = $1 AND attempt = $2 AND consumer IS NOT NULL)",
        process_id,
        attempt,
    )
    return found


async def store_decision(
    session: AsyncSession, before: Process, decision: Decision, *, due_in: float | None
) -> datetime:
    """Store a decision about a process that is locked in this session's transaction.

    Returns:
        The database's time.
    """
    receipt = await advance(await get_driver(session), Advance(before, decision, due_in))
    assert receipt is not None, "the process was locked"  # noqa: S101 - a programming error, not a user's
    return receipt.at


def _receive(one: Advance, row: RowByName | None) -> Receipt | None:
    if row is None:
        return None
    following = None
    if row["claims"] and one.claim is not None:
        # The state in the row, as a separate claim would return it, even if a step has changed its argument in place.
        state, unreadable, base = read_parts(row, one.claim.base)
        after = one.decision.process
        process = with_changes(after, attempt=after.attempt + 1, state=state, unreadable=unreadable)
        following = Claim(process, one.claim.consumer_id, one.claim.consumer, row["at"], base=base)
    return Receipt(row["at"], row["announced"], following)


def _row(one: Advance) -> tuple[object, ...]:
    process, before = one.decision.process, one.before
    delta: State = {}
    removed: set[str] = set()
    for entry in one.decision.entries:
        delta.update(entry.delta)
        removed = (removed - entry.delta.keys()) | set(entry.removed)
    return (
        process.process_id,
        process.position,
        process.step,
        process.entered,
        process.status,
        to_jsonb(delta) if delta else "{}",
        to_jsonb(sorted(removed)) if removed else None,
        process.sequence,
        process.failures,
        process.lost,
        process.interruptions,
        process.crashes,
        process.rewinds,
        process.actor,
        one.due_in,
        before.sequence,
        before.attempt,
        None if one.claim is None else one.claim.consumer_id,
        None if one.claim is None else one.claim.claimed_at,
        process.assignee,
        process.plan,
        before.sequence if one.held_from is None else one.held_from,
        process.workflow,
        one.goes_on,
        None if one.claim is None or one.claim.base is None else one.claim.base.sequence,
    )


def build_log_row(process_id: UUID, entry: Entry) -> tuple[object, ...]:
    """Return a log entry as the statements here and in ``insert`` unnest it."""
    return (
        process_id,
        entry.sequence,
        entry.kind,
        entry.name,
        entry.position,
        entry.attempt,
        entry.status,
        to_jsonb(entry.delta) if entry.delta else "{}",
        to_jsonb(list(entry.removed)) if entry.removed else None,
        None if entry.failure is None else to_jsonb(serialize_failure(entry.failure)),
        entry.note,
        entry.author,
        entry.ran,
    )


def serialize_failure(failure: Failure) -> dict[str, JSON]:
    """Return a failure as it is stored and shown."""
    return {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "details": failure.details,
    }
