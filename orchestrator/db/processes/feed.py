"""Read the log of all processes in the order in which its entries became visible, for event streams.

A page is read by one statement, with the snapshot that says which transactions it has seen. It costs what was committed since the
last one, however long another transaction stays open.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.db.processes.bases import WHOLE
from orchestrator.db.session import DriverPool
from orchestrator.engine.position import Place, Position
from orchestrator.engine.references import SUBSCRIPTION_ID
from orchestrator.types import State

PAGE = 500
"""The most log entries to read at a time; all entries of one transaction are read together."""

# Of the state, which may be large, only references to subscriptions. A lax path also visits the elements of arrays.
_FIELDS = f"""
s.process_id, s.sequence, s.txid, s.kind, s.name, s.status, s.attempt, s.author, s.position, s.finished_at,
p.workflow, p.is_task, w.target,
(SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each({WHOLE}) AS e(key, value)
  WHERE e.key = '{SUBSCRIPTION_ID}' OR jsonb_path_exists(e.value, '$.{SUBSCRIPTION_ID}')) AS referring
"""  # noqa: S608 - built from constants
_PROCESSES = "JOIN processes p USING (process_id) JOIN workflows w USING (workflow_id)"

# Entries restored from another server's dump may have transaction numbers that this server has not reached yet.
_NEXT = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


def _read_wanted(wanted: str) -> str:
    """Return the statement that reads a page of the entries for which a condition holds."""
    return f"""
WITH fresh AS (
    SELECT s.process_id, s.sequence, s.txid FROM process_steps s JOIN processes p USING (process_id)
     WHERE s.txid >= $1 AND s.txid < {_NEXT} AND {wanted}
     ORDER BY s.txid FETCH FIRST ($3::int) ROWS WITH TIES
), late AS (
    SELECT s.process_id, s.sequence, s.txid FROM process_steps s JOIN processes p USING (process_id)
     WHERE s.txid = ANY($2::bigint[]) AND {wanted}
), page AS (
    SELECT process_id, sequence FROM (TABLE fresh UNION ALL TABLE late) AS both_of_them
     ORDER BY txid FETCH FIRST ($3::int) ROWS WITH TIES
)
SELECT now.snapshot, found.* FROM (SELECT pg_current_snapshot()::text AS snapshot) AS now
  LEFT JOIN (SELECT {_FIELDS} FROM page JOIN process_steps s USING (process_id, sequence) {_PROCESSES}) AS found ON true
"""  # noqa: S608 - built from constants


# One statement for each kind of reader: a reader of one process reads only its log.
_OF_PROCESS, _OF_WORKFLOW = "s.process_id = $4::uuid", "p.workflow = $5::text"
_READ = {
    (False, False): _read_wanted("$4::uuid IS NULL AND $5::text IS NULL"),
    (True, False): _read_wanted(f"{_OF_PROCESS} AND $5::text IS NULL"),
    (False, True): _read_wanted(f"{_OF_WORKFLOW} AND $4::uuid IS NULL"),
    (True, True): _read_wanted(f"{_OF_PROCESS} AND {_OF_WORKFLOW}"),
}

_READ_THESE = f"""
SELECT {_FIELDS} FROM process_steps s {_PROCESSES}
 WHERE s.txid > $3 AND (s.process_id, s.sequence) IN (SELECT * FROM unnest($1::uuid[], $2::int[]))
"""  # noqa: S608 - built from constants

_NOW = "SELECT pg_current_snapshot()::text"


@dataclass(frozen=True, slots=True)
class FeedRow:
    """A log entry with what its event needs of the process.

    Args:
        referring: the part of the process's state that refers to subscriptions.
    """

    place: Place
    kind: str
    name: str
    status: str
    attempt: int
    author: str
    position: int | None
    at: datetime
    workflow: str
    is_task: bool
    target: str
    referring: State


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Log entries that the reader's position did not cover, in no particular order.

    Args:
        snapshot: the transactions that the statement has seen.
        upto: the transaction with which the page ends, if there is more.
    """

    rows: Sequence[FeedRow]
    snapshot: Position
    upto: int | None


async def read_position(pool: DriverPool) -> Position:
    """Return the position of a reader that has read everything so far."""
    return Position.of_snapshot(await pool.fetchval(_NOW))


async def read_feed(
    pool: DriverPool, since: Position, *, process_id: UUID | None = None, workflow: str | None = None
) -> FeedPage:
    """Return the next entries that are not in ``since``.

    A page that is not the last may also have entries that precede one of its own in the log of a process but follow it in the
    order of transactions; the next pages have them again.
    """
    statement = _READ[process_id is not None, workflow is not None]
    records = await pool.fetch(statement, since.below, since.open, PAGE, process_id, workflow)
    snapshot = Position.of_snapshot(records[0]["snapshot"])
    rows = [_read_row(record) for record in records if record["process_id"] is not None]
    if len(rows) < PAGE:
        return FeedPage(rows, snapshot, None)
    upto = max(row.place.txid for row in rows)
    fresh: Sequence[FeedRow] = rows
    while fresh:
        known = {(row.place.process_id, row.place.sequence) for row in rows}
        before = {(row.place.process_id, row.place.sequence - 1) for row in fresh} - known
        missing = zip(*before, strict=True) if before else ((), ())
        fresh = [_read_row(record) for record in await pool.fetch(_READ_THESE, *map(list, missing), upto)]
        rows.extend(fresh)
    return FeedPage(rows, snapshot, upto)


def _read_row(record: Any) -> FeedRow:
    return FeedRow(
        Place(record["process_id"], record["sequence"], record["txid"]),
        record["kind"],
        record["name"],
        record["status"],
        record["attempt"],
        record["author"],
        record["position"],
        record["finished_at"],
        record["workflow"],
        record["is_task"],
        record["target"],
        json.loads(record["referring"] or "{}"),
    )
