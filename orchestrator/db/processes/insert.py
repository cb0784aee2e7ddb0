"""Store new processes: one statement reads what a start needs, one inserts; in the usual case one statement does both.

That statement may store several starts. If another open transaction has used one of their keys, it waits only for a moment: none
of the other starts waits for long, and two programs that store the same keys do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.bounds import LIMIT_FROM_HERE
from orchestrator.db.callbacks import change_callback
from orchestrator.db.parameters import Statement, Table
from orchestrator.db.processes.advance import ENTRY_COLUMNS, build_log_row, wake_expression
from orchestrator.db.processes.bases import LIMIT
from orchestrator.db.processes.due import NOT_PUBLISHED
from orchestrator.db.processes.outbox import ANNOUNCE_SOON
from orchestrator.db.session import Driver, DriverPool, get_connection, get_driver, to_jsonb
from orchestrator.db.status import IS_PAUSED, REGISTERED
from orchestrator.db.step_session import MARK_SETTING
from orchestrator.engine.decide import Decision

WAITS_AT_MOST: Final = "50ms"
"""How long a start in the usual case waits for another transaction; the commit of another start takes a few of these."""

_FACTS = f"""
SELECT (SELECT workflow_id FROM workflows WHERE name = :workflow AND deleted_at IS NULL) AS workflow_id,
       {IS_PAUSED} AS paused, o.process_id, o.request_digest, {REGISTERED} AS registered,
       EXISTS (SELECT FROM workflow_plans WHERE workflow = :workflow AND fingerprint = :plan) AS knows_plan
  FROM (SELECT CAST(:workflow AS text) AS workflow) AS p
"""  # noqa: S608 - built from constants
_START_FACTS = text(f"{_FACTS} LEFT JOIN processes o ON o.request_key = :key")
# A request under the sender's own key comes first. Under other keys only the same request of the same user counts.
_START_FACTS_OF_SENDER = text(
    f"""
    {_FACTS} LEFT JOIN LATERAL (
        SELECT process_id, request_digest, 1 AS place FROM processes WHERE request_key = :key
        UNION ALL
        SELECT process_id, request_digest, 2 FROM processes
         WHERE request_key = :older AND request_digest = :digest AND started_by = :user
        ORDER BY place LIMIT 1
    ) o ON true
    """  # noqa: S608 - as above
)

_SET_PATIENCE = text("SELECT set_config('lock_timeout', :patience, true)")
_FIND_KEYS = text("SELECT request_key FROM processes WHERE request_key = ANY(:keys)")

_GIVEN = {
    "process_id": "uuid",
    "position": "int",
    "step": "text",
    "entered": "bool",
    "status": "text",
    "state": "text",
    "sequence": "int",
    "actor": "text",
    "started_by": "text",
    "assignee": "text",
    "plan": "text",
    "due_in": "float8",
    "workflow": "text",
    "is_task": "bool",
    "request_key": "text",
    "request_digest": "bytea",
    "dispatches": "int",
    "parent_id": "uuid",
    "subscription_id": "uuid",
}
_PROCESS = _GIVEN | {"workflow_id": "uuid"}
_UNCHECKED = _GIVEN | {"older_key": "text"}

_IS_LARGE = f"octet_length(n.state) > {LIMIT}"
_SMALL = f"CASE WHEN {_IS_LARGE} THEN '{{}}'::jsonb ELSE n.state::jsonb END"


def _store(new: str, entries: str) -> str:
    """Return the part of a statement that stores processes, given the SQL for them and for the entries of their logs."""
    return f"""
WITH n AS (
    {new}
), made AS (
    INSERT INTO processes (process_id, position, step, entered, status, state, sequence, actor, due_at, wake_at, announce_at,
                           workflow_id, workflow, is_task, started_by, request_key, request_digest, attempt, failures, lost,
                           rewinds, assignee, plan, dispatches, parent_id, base, base_sequence)
    SELECT n.process_id, n.position, n.step, n.entered, n.status, {_SMALL}, n.sequence, n.actor,
           statement_timestamp() + n.due_in * interval '1 second', {wake_expression("n.status", "n.due_in")},
           CASE WHEN n.status <> 'running' THEN {ANNOUNCE_SOON} END, n.workflow_id, n.workflow, n.is_task, n.started_by,
           n.request_key, n.request_digest, 0, 0, 0, 0, n.assignee, n.plan, n.dispatches, n.parent_id,
           CASE WHEN {_IS_LARGE} THEN n.state::jsonb END, CASE WHEN {_IS_LARGE} THEN n.sequence END
      FROM n
    ON CONFLICT (request_key) DO NOTHING
    RETURNING process_id
), logged AS (
    INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, failure, note, author,
                               started_at, finished_at)
    SELECT e.process_id, e.sequence, e.kind, e.name, e.position, e.attempt, e.status, e.delta::jsonb, e.failure::jsonb,
           e.note, e.author, statement_timestamp(), statement_timestamp()
      FROM made JOIN {entries} USING (process_id)
), linked AS (
    INSERT INTO processes_subscriptions (process_id, subscription_id)
    SELECT n.process_id, n.subscription_id
      FROM made JOIN n USING (process_id) JOIN subscriptions USING (subscription_id)
)
SELECT process_id, statement_timestamp() AS at
"""  # noqa: S608 - built from constants


# A step may go on after it has started processes; whoever else starts them only commits, and others may wait for that: those who
# start with the same key, or when no other instance runs.
def _insert(processes: Table, entries: Table) -> str:
    """Return the statement: a row of parameters for each process, and one for each entry of its log."""
    new = f"SELECT * FROM {processes('n', _PROCESS, 1)}"  # noqa: S608 - built from constants
    return f"""
{_store(new, entries("e", ENTRY_COLUMNS, 1 + len(_PROCESS)))},
       CASE WHEN COALESCE(current_setting('{MARK_SETTING}', true), '') = '' THEN {LIMIT_FROM_HERE} END
  FROM made
"""


# It asks for the simplest case: the workflow registered, with the very plan that the program has; the engine not paused; the key
# unused. What else may be, and what follows from it, is read with the facts. The limit is set before the first row is inserted,
# because the row depends on it; and all programs insert in the order of the keys.
def _insert_if_usual(processes: Table, entries: Table) -> str:
    """Return the statement that finds the workflow's row itself and stores nothing in an unusual case."""
    new = f"""
    SELECT p.*, w.workflow_id
      FROM {processes("p", _UNCHECKED, 1)} JOIN workflows AS w ON w.name = p.workflow AND w.deleted_at IS NULL
     WHERE (SELECT set_config('lock_timeout', '{WAITS_AT_MOST}', true)) IS NOT NULL
       AND NOT {IS_PAUSED} AND p.plan = {REGISTERED}
       AND NOT EXISTS (SELECT FROM processes AS o WHERE o.request_key = p.older_key AND o.request_digest = p.request_digest
                                                    AND o.started_by = p.started_by)
     ORDER BY p.request_key
    """  # noqa: S608 - built from constants
    return f"{_store(new, entries('e', ENTRY_COLUMNS, 1 + len(_UNCHECKED)))} FROM made"


_INSERT = Statement(_insert)
_INSERT_IF_USUAL = Statement(_insert_if_usual)


class LockWaitError(Exception):
    """A statement has waited for another transaction for as long as it may; this transaction is lost."""


@dataclass(frozen=True, slots=True)
class NewProcess:
    """A process to store.

    Args:
        decision: about its start.
        workflow_id: of the workflow's row; ``None`` for :class:`Template`: the statement finds it.
        request_key: no two processes have the same.
        due_in: seconds until the reconciler must handle it; ``None`` for never.
        is_published_next: whether its first command is published right after the commit, and not by the reconciler.
        parent_id: the process whose step starts it.
        subscription_id: the subscription it is about, which is recorded as touched by it.
    """

    decision: Decision
    workflow_id: UUID | None
    is_task: bool
    request_key: str | None
    request_digest: bytes | None
    due_in: float | None
    is_published_next: bool = True
    parent_id: UUID | None = None
    subscription_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class StartFacts:
    """The facts for a start: the workflow's row, whether the engine is paused, and which process has the key.

    Args:
        registered: the fingerprint of the workflow's registered plan.
        knows_plan: whether any program has registered the caller's plan.
    """

    workflow_id: UUID | None
    paused: bool
    process_id: UUID | None
    request_digest: bytes | None
    registered: str | None
    knows_plan: bool


@dataclass(frozen=True, slots=True)
class OlderKey:
    """The key of a request as older versions without senders stored it, and the request that it must belong to."""

    text: str
    digest: bytes
    user: str


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The key of a request as it is stored; ``older`` as an older version may have stored it."""

    text: str
    older: OlderKey | None = None


async def read_start_facts(
    session: AsyncSession, workflow: str, key: RequestKey | None, plan: str | None = None
) -> StartFacts:
    """Return the facts for a start in one round trip; ``plan`` is the fingerprint of the program's plan."""
    known = {"workflow": workflow, "key": None if key is None else key.text, "plan": plan}
    if key is None or key.older is None:
        row = (await session.execute(_START_FACTS, known)).one()
    else:
        older = {"older": key.older.text, "digest": key.older.digest, "user": key.older.user}
        row = (await session.execute(_START_FACTS_OF_SENDER, known | older)).one()
    return StartFacts(
        row.workflow_id, bool(row.paused), row.process_id, row.request_digest, row.registered, row.knows_plan
    )


async def insert_process(session: AsyncSession, new: NewProcess, *, patience: float | None = None) -> datetime | None:
    """Store a new process with its first log rows, in one statement.

    Args:
        patience: seconds for which the rest of the transaction waits for others, such as an open one that has used the
            same ``request_key``; by default without a limit.

    Returns:
        The database's time, or ``None`` when another process has the same ``request_key``; then nothing is stored.

    Raises:
        LockWaitError: the other one has not ended by then.
    """
    if patience is not None:
        await session.execute(_SET_PATIENCE, {"patience": f"{patience * 1000:.0f}ms"})
    try:
        stored = await insert_processes(session, [new])
    except DBAPIError as error:
        if patience is None or getattr(error.orig, "sqlstate", None) != asyncpg.LockNotAvailableError.sqlstate:
            raise
        raise LockWaitError(f"another transaction has not ended after {patience:g} s") from error
    return stored.get(new.decision.process.process_id)


async def insert_processes(session: AsyncSession, processes: Sequence[NewProcess]) -> dict[UUID, datetime]:
    """Store new processes with their first log rows, in one statement.

    Returns:
        The ids of those that were stored, with the database's time; the others' keys belong to other processes.
    """
    if not processes:
        return {}
    rows = [(*_row(one), one.workflow_id) for one in processes]
    entries = [
        build_log_row(one.decision.process.process_id, entry) for one in processes for entry in one.decision.entries
    ]
    query, parameters = _INSERT.write(rows, entries)
    connection = await get_connection(session)
    found = await connection.exec_driver_sql(query, tuple(parameters))
    stored = {row.process_id: row.at for row in found}
    for one in processes:
        if one.decision.callback is not None and one.decision.process.process_id in stored:
            await change_callback(await get_driver(session), one.decision.process.process_id, one.decision.callback)
    return stored


@dataclass(frozen=True, slots=True)
class PlainStart:
    """A process to store in the usual case.

    Args:
        row, entries: parameters of the statement.
        key: of the request.
        older_key: the key under which older versions may have stored it.
    """

    process_id: UUID
    row: tuple[object, ...]
    entries: list[tuple[object, ...]]
    key: str | None
    older_key: str | None


class Template:
    """Makes new processes that differ only in their ids and keys.

    Args:
        new: one of them. It opens no callback.
    """

    def __init__(self, new: NewProcess) -> None:
        process_id = new.decision.process.process_id
        self._row = dict(zip(_UNCHECKED, (*_row(new), None), strict=True))
        self._entries = [build_log_row(process_id, entry)[1:] for entry in new.decision.entries]

    def make(self, process_id: UUID, key: RequestKey | None, digest: bytes | None) -> PlainStart:
        """Return such a process.

        Args:
            key: of the request; one that older versions may have stored has its digest, and the user who starts the process.
            digest: of the request, if it has a key.
        """
        own = None if key is None else key.text
        older = None if key is None or key.older is None else key.older.text
        differs: dict[str, object] = {
            "process_id": process_id,
            "request_key": own,
            "request_digest": digest,
            "older_key": older,
        }
        row = tuple((self._row | differs).values())
        return PlainStart(process_id, row, [(process_id, *entry) for entry in self._entries], own, older)


async def insert_if_usual(connection: Driver | DriverPool, starts: Sequence[PlainStart]) -> list[datetime | None]:
    """Store those of the processes that are the usual case, in one round trip and a transaction of its own.

    Returns:
        The database's time for each. ``None`` when it is not stored: the workflow is not registered, or with another plan; the
        engine is paused; the key has been used, also by another one of these; or, of a single one, a transaction that has not
        ended holds the key.

    Raises:
        asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError: such a transaction holds the key of one of several; none is
            stored.
    """
    keys = {one.key for one in starts if one.key is not None}
    # The statement does not see whether another one of these has used the key.
    sent = [one for one in starts if one.older_key not in keys]
    query, parameters = _INSERT_IF_USUAL.write(
        [one.row for one in sent], [entry for one in sent for entry in one.entries]
    )
    try:
        stored = {row["process_id"]: row["at"] for row in await connection.fetch(query, *parameters)}
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        if len(starts) > 1:
            raise
        stored = {}
    return [stored.get(one.process_id) for one in starts]


async def find_request_keys(session: AsyncSession, keys: Sequence[str]) -> list[str]:
    """Return those of these keys under which processes were started."""
    found = await session.scalars(_FIND_KEYS, {"keys": list(keys)})
    return list(found)


def _row(new: NewProcess) -> tuple[object, ...]:
    process = new.decision.process
    return (
        process.process_id,
        process.position,
        process.step,
        process.entered,
        process.status.value,
        to_jsonb(process.state),
        process.sequence,
        process.actor,
        process.started_by,
        process.assignee,
        process.plan,
        new.due_in,
        process.workflow,
        new.is_task,
        new.request_key,
        new.request_digest,
        0 if new.is_published_next or new.decision.dispatch is None else NOT_PUBLISHED,
        new.parent_id,
        new.subscription_id,
    )
