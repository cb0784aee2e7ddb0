"""Claim steps: the statement that fences a step and fetches what is needed to run it, for many steps at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.parameters import Statement, Table
from orchestrator.db.processes.bases import Base, Bases, parts, read_parts
from orchestrator.db.processes.outbox import ANNOUNCE_SOON
from orchestrator.db.processes.rows import COLUMNS, COLUMNS_BUT_STATE, build_process, build_process_with
from orchestrator.db.session import Driver, DriverPool
from orchestrator.db.status import IS_PAUSED, IS_SILENT, REGISTERED
from orchestrator.engine.process import Process
from orchestrator.engine.values import value
from orchestrator.messages import StepCommand

# A claim need not survive a crash of the server: losing it only means that the command is published again, and a commit is
# fenced by the claiming consumer's id as well as by the attempt. So it may skip the wait for the disk. The setting is made
# in the RETURNING list, which runs only if something was claimed, inside the statement's own transaction.
_WANTED = {"process_id": "uuid", "position": "int", "attempt": "int", "announced": "int", "plan": "text", "base": "int"}


def _claim(commands: Table) -> str:
    return f"""
UPDATE processes AS p
   SET attempt = p.attempt + 1, claimed_by = $1, claimed_at = now(), dispatches = 0,
       announced = GREATEST(p.announced, c.announced),
       announce_at = CASE WHEN GREATEST(p.announced, c.announced) < p.sequence THEN COALESCE(p.announce_at, {ANNOUNCE_SOON}) END
  FROM {commands("c", _WANTED, 2)}
 WHERE p.process_id = c.process_id AND p.status = 'running' AND p.position = c.position AND p.attempt = c.attempt
   AND p.claimed_by IS NULL
   AND (p.plan = c.plan OR (p.plan IS NULL AND c.plan = COALESCE({REGISTERED}, c.plan)))
   AND NOT {IS_PAUSED}
   AND EXISTS (SELECT FROM consumers WHERE consumer_id = $1)
RETURNING {COLUMNS_BUT_STATE}, {parts("c.base")}, p.claimed_at, set_config('synchronous_commit', 'off', true)
"""  # noqa: S608 - built from constants


_CLAIM = Statement(_claim)

_LIST = f"SELECT {COLUMNS}, p.claimed_at FROM processes AS p WHERE p.status = 'running' AND p.claimed_by = $1"  # noqa: S608
_LOAD = f"{_LIST} AND p.process_id = $2 AND p.attempt = $3"
# A claim in the statement that completes a step has the time of that step's end.
_LOAD_FOLLOWING = f"""
{_LOAD} AND EXISTS (SELECT FROM process_steps AS s
                     WHERE s.process_id = $2 AND s.attempt = $3 - 1 AND s.finished_at = p.claimed_at)
"""
_TIMES = "SELECT process_id, claimed_at FROM processes WHERE status = 'running' AND claimed_by = $1"
_READ_STANDING = f"""
SELECT p.position, p.attempt, p.plan, {REGISTERED} AS registered FROM processes AS p
 WHERE p.process_id = $1 AND p.status = 'running' AND p.claimed_by IS NULL
"""  # noqa: S608 - built from constants

# Three times must have passed, all of them the limit in the consumer's own row: since its last heartbeat, since the claim (a
# consumer that was frozen may claim before its next heartbeat), and since this program can read heartbeats.
_LOCK_LOST = text(
    f"""
    SELECT {COLUMNS}, p.claimed_by, p.claimed_at, COALESCE(c.name, 'unknown') AS consumer,
           GREATEST(0, EXTRACT(EPOCH FROM now() - c.seen_at))::float8 AS silent_for,
           EXTRACT(EPOCH FROM c.seen_at - c.responsive_at)::float8 AS unresponsive_for, c.blocked_by::text AS blocked_by
      FROM processes AS p LEFT JOIN consumers AS c ON c.consumer_id = p.claimed_by
     WHERE p.status = 'running' AND p.claimed_by IS NOT NULL AND (c.consumer_id IS NULL OR {IS_SILENT})
       AND p.claimed_at < now() - COALESCE(c.presumed_dead_after, :presumed_dead_after) * interval '1 second'
       AND COALESCE(c.presumed_dead_after, :presumed_dead_after) <= :reads_for
       AND p.process_id <> ALL(:but_not)
     ORDER BY p.claimed_by, p.process_id
     LIMIT :limit
       FOR NO KEY UPDATE OF p SKIP LOCKED
    """  # noqa: S608 - built from constants
)


@value(frozen=True, slots=True)
class Claim:
    """A step that this consumer, and no other, may commit.

    Args:
        base: the part of the process's state that the next step need not fetch again.
    """

    process: Process
    consumer_id: UUID
    consumer: str
    claimed_at: datetime
    base: Base | None = field(default=None, kw_only=True, compare=False, repr=False)


@value(frozen=True, slots=True)
class LostClaim(Claim):
    """A claim whose consumer is presumed dead, and what was observed of the consumer.

    Args:
        silent_for: seconds since its last heartbeat; ``None`` when it has no row.
        unresponsive_for: seconds for which its event loop had not responded at that heartbeat; ``None`` when unknown.
        blocked_by: what blocked the loop then: ``by``, ``at``, ``process_id`` and so on.
    """

    silent_for: float | None
    unresponsive_for: float | None = None
    blocked_by: dict[str, Any] | None = None

    @property
    def seen(self) -> str:
        """What was observed of the consumer, as a predicate."""
        if self.silent_for is None:
            return "has no row in the table consumers"
        silent = f"sent no heartbeat for {self.silent_for:.0f} s"
        if self.blocked_by is None:
            return silent
        culprit = "".join(f" {word} {self.blocked_by[word]}" for word in ("by", "at") if self.blocked_by.get(word))
        return (
            f"{silent}, and when it sent the last one its event loop had been blocked for"
            f" {self.unresponsive_for or 0:.0f} s{culprit}"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A command, and the fingerprint of the plan by which this consumer would run its step."""

    command: StepCommand
    plan: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The position of a running process that no consumer has claimed.

    Args:
        plan: the fingerprint of its plan; ``None`` in a row that an older engine has stored.
        registered: the fingerprint of the registered plan of its workflow.
    """

    position: int
    attempt: int
    plan: str | None
    registered: str | None


async def claim_many(
    connection: Driver, wanted: Sequence[Wanted], *, consumer_id: UUID, consumer: str, bases: Bases | None = None
) -> list[Claim | None]:
    """Fence the steps of these commands: raise their attempts and mark who runs them, all in one statement.

    Args:
        bases: the bases that this consumer knows.

    Returns:
        For each command a claim, or ``None`` when the command is stale, the engine is paused, or the process has another
        plan. Of two commands for one step the first gets it.
    """
    # In the same order everywhere, so that two consumers that claim the same steps cannot deadlock.
    by_process = sorted(wanted, key=lambda one: one.command.process_id)
    ordered = [one.command for one in by_process]
    bases = bases or Bases()
    known = {one.process_id: bases.find(one.process_id) for one in ordered}
    values = [
        (one.process_id, one.position, one.attempt, one.announced, each.plan, base and base.sequence)
        for one, each, base in ((each.command, each, known[each.command.process_id]) for each in by_process)
    ]
    query, parameters = _CLAIM.write(values)
    rows = await connection.fetch(query, consumer_id, *parameters)
    found: dict[UUID, Claim] = {}
    for row in rows:
        state, unreadable, base = read_parts(row, known[row["process_id"]])
        process = build_process_with(row, state, unreadable)
        found[process.process_id] = Claim(process, consumer_id, consumer, row["claimed_at"], base=base)
        bases.keep(process.process_id, base)
    claims: list[Claim | None] = []
    for one in (each.command for each in wanted):
        claimed = found.get(one.process_id)
        # The row was claimed for one command; another command for the same process may be for another attempt.
        fits = (
            claimed is not None
            and claimed.process.attempt == one.attempt + 1
            and claimed.process.position == one.position
        )
        claims.append(found.pop(one.process_id) if fits else None)
    return claims


async def list_claims(connection: Driver, consumer_id: UUID, consumer: str) -> list[Claim]:
    """Return all claims of a consumer, as the database sees them."""
    rows = await connection.fetch(_LIST, consumer_id)
    return [Claim(build_process(row), consumer_id, consumer, row["claimed_at"]) for row in rows]


async def load_claim(
    connection: Driver, consumer_id: UUID, consumer: str, process_id: UUID, attempt: int
) -> Claim | None:
    """Return a consumer's claim of this attempt of a process; ``None`` when it no longer holds it."""
    row = await connection.fetchrow(_LOAD, consumer_id, process_id, attempt)
    return None if row is None else Claim(build_process(row), consumer_id, consumer, row["claimed_at"])


async def load_following_claim(connection: Driver, before: Claim) -> Claim | None:
    """Return the claim that was made in the statement that ended another one of this consumer; ``None`` when none is held."""
    process = before.process
    row = await connection.fetchrow(_LOAD_FOLLOWING, before.consumer_id, process.process_id, process.attempt + 1)
    return None if row is None else Claim(build_process(row), before.consumer_id, before.consumer, row["claimed_at"])


async def list_claim_times(connection: Driver, consumer_id: UUID) -> dict[UUID, datetime]:
    """Return the processes that a consumer has claimed and when, by the database's clock."""
    rows = await connection.fetch(_TIMES, consumer_id)
    return {row["process_id"]: row["claimed_at"] for row in rows}


async def read_standing(pool: DriverPool, process_id: UUID) -> Standing | None:
    """Return the position of a process whose step could not be claimed; ``None`` when no consumer may run it now."""
    row = await pool.fetchrow(_READ_STANDING, process_id)
    return None if row is None else Standing(**row)


async def lock_lost_claims(
    session: AsyncSession, *, reads_for: float, presumed_dead_after: float, limit: int, but_not: Iterable[UUID] = ()
) -> list[LostClaim]:
    """Lock and return claims whose consumer is presumed dead, or has no row at all.

    The claims of one consumer are adjacent.

    Args:
        reads_for: how many seconds the caller has been able to read heartbeats.
        presumed_dead_after: seconds after which a claim is lost whose consumer has no row; a row says how long its consumer
            may be silent.
        but_not: processes whose claims are left out.
    """
    values = {
        "reads_for": reads_for,
        "presumed_dead_after": presumed_dead_after,
        "limit": limit,
        "but_not": list(but_not),
    }
    rows = (await session.execute(_LOCK_LOST, values)).mappings()
    return [
        LostClaim(
            build_process(row),
            row["claimed_by"],
            row["consumer"],
            row["claimed_at"],
            row["silent_for"],
            row["unresponsive_for"],
            None if row["blocked_by"] is None else from_json(row["blocked_by"]),
        )
        for row in rows
    ]
