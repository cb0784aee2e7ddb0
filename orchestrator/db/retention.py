"""Find and delete what has expired, a batch at a time: finished tasks by workflow, and old records of other kinds.

Each statement reads the rows of its batch and no others, however much there is or was: it begins after the key at which the batch
before it ended. What a step or a person has locked is left for the next clean-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from orchestrator.db.session import Driver, DriverPool

# As in the index ix_processes_finished_tasks, word for word.
_FINISHED = "is_task AND NOT is_kept AND status IN ('completed', 'aborted')"

_WORKFLOWS = "SELECT workflow_id, name, deleted_at IS NOT NULL AS is_removed FROM workflows ORDER BY name, workflow_id"

# The size stands in the text: for a parameter PostgreSQL plans as if it were a tenth of the table, and then reads all of it.
_LOCK_BATCH = f"""
SELECT process_id, rested_at, announced >= sequence AS is_announced
  FROM processes
 WHERE workflow_id = $1 AND {_FINISHED} AND rested_at < $2 AND (rested_at, process_id) > ($3, $4)
 ORDER BY rested_at, process_id
 LIMIT {{size:d}}
   FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - built from constants

_REASONS = """
SELECT locked_by AS process_id, 'holds' AS reason FROM subscriptions WHERE locked_by = ANY($1::uuid[])
 UNION
SELECT process_id, 'changed' FROM subscription_changes WHERE process_id = ANY($1::uuid[])
 UNION
SELECT parent.id, 'children' FROM unnest($1::uuid[]) AS parent(id)
 CROSS JOIN LATERAL (SELECT FROM processes child
                      WHERE child.parent_id = parent.id AND child.status NOT IN ('completed', 'aborted') LIMIT 1) AS unfinished
 UNION
SELECT child.process_id, 'parent' FROM processes child JOIN processes parent ON parent.process_id = child.parent_id
 WHERE child.process_id = ANY($1::uuid[]) AND parent.status NOT IN ('completed', 'aborted')
"""

_DELETE = "DELETE FROM processes WHERE process_id = ANY($1::uuid[])"

_KEEP = "UPDATE processes SET is_kept = true WHERE process_id = ANY($1::uuid[])"

_OLDEST = f"""
SELECT rule.workflow, EXTRACT(EPOCH FROM now() - oldest.rested_at)::float8 - rule.seconds AS expired_for
  FROM unnest($1::uuid[], $2::text[], $3::float8[]) AS rule(workflow_id, workflow, seconds)
 CROSS JOIN LATERAL (SELECT rested_at FROM processes WHERE workflow_id = rule.workflow_id AND {_FINISHED}
                      ORDER BY rested_at LIMIT 1) AS oldest
 WHERE oldest.rested_at < now() - rule.seconds * interval '1 second'
 ORDER BY expired_for DESC
"""  # noqa: S608 - built from constants

_COUNT = f"""
SELECT sum(found.tasks)::int
  FROM unnest($1::uuid[], $2::float8[]) AS rule(workflow_id, seconds)
 CROSS JOIN LATERAL (SELECT count(*) AS tasks
                       FROM (SELECT FROM processes
                              WHERE workflow_id = rule.workflow_id AND {_FINISHED}
                                AND rested_at < now() - rule.seconds * interval '1 second' LIMIT $3) few) AS found
"""  # noqa: S608 - built from constants

_OLDEST_RECORD = "SELECT EXTRACT(EPOCH FROM now() - min({column}))::float8 FROM {table}"

_DELETE_RECORDS = """
WITH batch AS (
    SELECT ctid, {column} AS at FROM {table} WHERE {column} >= $1 AND {column} < $2
     ORDER BY {column} LIMIT {size:d} FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM batch))
)
SELECT count(*) AS read, max(at) AS newest FROM batch
"""

# Nothing here is found faster by reading a table as a whole, whatever old statistics make PostgreSQL think of its size.
_BOUND = """
SELECT set_config('enable_seqscan', 'off', true)
 UNION ALL
SELECT set_config(name, $1::int::text, true) FROM pg_settings
 WHERE name IN ('statement_timeout', 'lock_timeout') AND (setting = '0' OR setting::int > $1::int)
"""

LEFT = {
    "holds": "hold a subscription out of sync",
    "unannounced": "have unconfirmed events",
    "children": "have started a process that has not ended",
    "parent": "were started by a process that has not ended",
}
"""Why a task is left for the next clean-up, for people."""

LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)

_LOWEST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class StoredWorkflow:
    """A row of the table of workflows. A name may have several: those that were removed, and the present one."""

    workflow_id: UUID
    name: str
    is_removed: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """For how many seconds finished tasks of a workflow are kept."""

    workflow_id: UUID
    workflow: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Key:
    """Where a batch has ended: at the time of the last task that it read, and at its id, because several have one time."""

    at: datetime = LONG_AGO
    process_id: UUID = _LOWEST


@dataclass(frozen=True, slots=True)
class TaskBatch:
    """What became of a batch of expired tasks.

    Args:
        is_last: whether there are no more.
        deleted: how many were deleted.
        kept: how many are kept from now on, because they have changed subscriptions.
        left: how many were left for the next clean-up, by reason.
        end: where the next batch begins.
    """

    is_last: bool
    deleted: int = 0
    kept: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    end: Key = field(default_factory=Key)


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """How many records a batch has deleted, whether there are no more, and from which time on the next batch begins."""

    is_last: bool
    deleted: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class RecordKind:
    """A table whose rows are deleted a number of days after the time in a column, which is indexed."""

    table: str
    column: str
    days: int

    @property
    def seconds(self) -> float:
        """The days, in seconds."""
        return self.days * 86_400.0


@dataclass(frozen=True, slots=True)
class ExpiredRecords:
    """For how many seconds the oldest row of a table could have been deleted."""

    table: str
    expired_for: float


@dataclass(frozen=True, slots=True)
class Expired:
    """For how many seconds the oldest finished task of a workflow could have been deleted."""

    workflow: str
    expired_for: float


async def list_stored_workflows(connection: Driver) -> list[StoredWorkflow]:
    """Return all workflows that the database knows, the removed ones included: their processes are there still."""
    return [StoredWorkflow(**row) for row in await connection.fetch(_WORKFLOWS)]


async def bound_statements(connection: Driver, seconds: float) -> None:
    """Bound what each statement of the transaction may read, and how long it may take and wait for locks.

    Stricter bounds that the server has for the role stay.
    """
    await connection.fetch(_BOUND, int(seconds * 1000))


async def read_time(connection: Driver) -> datetime:
    """Return the time by the database's clock."""
    now: datetime = await connection.fetchval("SELECT now()")
    return now


async def delete_tasks(connection: Driver, size: int, *, rule: Rule, before: datetime, after: Key) -> TaskBatch:
    """Delete the next finished tasks of a workflow that ended before a time, with their logs, callbacks and links.

    Not deleted are tasks that have changed a subscription, whose history they are part of; those that hold one out of sync; those
    with events that the broker has not confirmed; and those that have started, or were started by, a process that has not ended:
    it may be looked up by the one, and must not be started again by the other.
    """
    rows = await connection.fetch(_LOCK_BATCH.format(size=size), rule.workflow_id, before, after.at, after.process_id)
    if not rows:
        return TaskBatch(is_last=True, end=after)
    ids = [row["process_id"] for row in rows]
    reasons = {row["process_id"]: "unannounced" for row in rows if not row["is_announced"]}
    kept: set[UUID] = set()
    for row in await connection.fetch(_REASONS, ids):
        if row["reason"] == "changed":
            kept.add(row["process_id"])
        else:
            reasons[row["process_id"]] = row["reason"]
    kept -= reasons.keys()
    deleted = [one for one in ids if one not in kept and one not in reasons]
    # Not for nothing: PostgreSQL tells API programs of each deletion.
    if deleted:
        await connection.execute(_DELETE, deleted)
    if kept:
        await connection.execute(_KEEP, list(kept))
    left = Counter(LEFT[reason] for reason in reasons.values())
    return TaskBatch(len(ids) < size, len(deleted), len(kept), left, Key(rows[-1]["rested_at"], ids[-1]))


async def delete_records(
    connection: Driver, size: int, *, kind: RecordKind, before: datetime, after: datetime
) -> RecordBatch:
    """Delete the next records from ``after`` on that are older than ``before``."""
    statement = _DELETE_RECORDS.format(table=kind.table, column=kind.column, size=size)
    (row,) = await connection.fetch(statement, after, before)
    return RecordBatch(row["read"] < size, row["read"], row["newest"] or after)


async def list_expired(connection: Driver | DriverPool, rules: Sequence[Rule]) -> list[Expired]:
    """Return the workflows with finished tasks that have expired, the longest first."""
    columns = [[one.workflow_id for one in rules], [one.workflow for one in rules], [one.seconds for one in rules]]
    return [Expired(**row) for row in await connection.fetch(_OLDEST, *columns)]


async def list_expired_records(connection: Driver | DriverPool, kinds: Sequence[RecordKind]) -> list[ExpiredRecords]:
    """Return the tables with records that have expired."""
    found = []
    for kind in kinds:
        age = await connection.fetchval(_OLDEST_RECORD.format(table=kind.table, column=kind.column))
        if age is not None and age > kind.seconds:
            found.append(ExpiredRecords(kind.table, age - kind.seconds))
    return found


async def count_expired(connection: Driver, rules: Sequence[Rule], limit: int) -> int:
    """Return how many finished tasks have expired, at most ``limit`` of each workflow."""
    columns = [[one.workflow_id for one in rules], [one.seconds for one in rules]]
    return await connection.fetchval(_COUNT, *columns, limit) or 0
