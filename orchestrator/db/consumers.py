"""The rows of consumers: who is alive, since when, by which limits, and with how many slots.

Only a consumer with a row can claim steps. How long it may be silent is written in its row: programs may have different settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Driver, DriverPool, to_jsonb
from orchestrator.db.status import IS_SILENT
from orchestrator.registry import Abilities
from orchestrator.types import JSON

_BEAT = """
INSERT INTO consumers (consumer_id, name, queues, concurrency, heartbeat_interval, presumed_dead_after, knows, broken,
                       revisions, received, held)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb, $11, $12::jsonb, $13::uuid[])
ON CONFLICT (consumer_id) DO UPDATE
   SET seen_at = now(), responsive_at = now() - $9::float8 * interval '1 second', blocked_by = $10::jsonb,
       received = $12::jsonb, held = $13::uuid[], threads_left_behind = $14
RETURNING now()
"""

# A consumer whose event loop does not respond is left out: what the broker has sent to it since is as good as lost until it
# responds again. One row at least, for the time.
_READ_REPORTS = text(
    f"""
    SELECT now() AS now, c.queues, COALESCE(c.responsive_at, c.seen_at) AS reported_at, c.received, c.held
      FROM (VALUES (true)) AS always(row)
      LEFT JOIN consumers c ON NOT {IS_SILENT} AND c.received IS NOT NULL
           AND COALESCE(c.responsive_at, c.seen_at) > now() - :beats * c.heartbeat_interval * interval '1 second'
    """  # noqa: S608 - built from constants
)
FRESH = 3
"""Heartbeats for which a report counts."""

_REMOVE = "DELETE FROM consumers WHERE consumer_id = $1"

_REMOVE_SILENT = text(
    f"""
    DELETE FROM consumers c
     WHERE {IS_SILENT} AND c.seen_at < now() - :silent_for * interval '1 second'
       AND NOT EXISTS (SELECT FROM processes p WHERE p.status = 'running' AND p.claimed_by = c.consumer_id)
    """  # noqa: S608 - built from constants
)


@dataclass(frozen=True, slots=True)
class ConsumerFacts:
    """What a consumer says of itself in its row.

    Args:
        heartbeat_interval: seconds between two heartbeats.
        presumed_dead_after: for how many seconds others must wait for a heartbeat before they give its claims away.
        abilities: which workflows it can run.
        revisions: the newest migrations that its code has.
    """

    consumer_id: UUID
    name: str
    queues: tuple[str, ...]
    concurrency: int
    heartbeat_interval: float
    presumed_dead_after: float
    abilities: Abilities
    revisions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """What a consumer has received and not yet claimed.

    Args:
        newest: step queue → how new the newest command is that it has received.
        held: the processes whose commands it holds.
    """

    newest: Mapping[str, datetime] = field(default_factory=dict)
    held: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """What a living consumer has last reported.

    Args:
        queues: that it reads.
        reported_at: since when that holds, by the database's clock.
    """

    queues: frozenset[str]
    reported_at: datetime
    received: Received


async def record_heartbeat(
    connection: Driver | DriverPool,
    facts: ConsumerFacts,
    unresponsive_for: float = 0.0,
    blocked_by: Mapping[str, JSON] | None = None,
    received: Received | None = None,
    threads_left_behind: int = 0,
) -> datetime:
    """Record that a consumer is alive; the first heartbeat inserts its row.

    Args:
        unresponsive_for: for how many seconds its event loop has not responded.
        blocked_by: what blocks the loop.
        received: what it has received from the step queues.
        threads_left_behind: how many threads run functions that should have ended.

    Returns:
        The database's time.
    """
    now: datetime = await connection.fetchval(
        _BEAT,
        facts.consumer_id,
        facts.name,
        list(facts.queues),
        facts.concurrency,
        facts.heartbeat_interval,
        facts.presumed_dead_after,
        to_jsonb(facts.abilities.knows),
        to_jsonb(facts.abilities.broken),
        unresponsive_for,
        None if blocked_by is None else to_jsonb(blocked_by),
        list(facts.revisions),
        None if received is None else to_jsonb({name: at.isoformat() for name, at in received.newest.items()}),
        None if received is None else list(received.held),
        threads_left_behind,
    )
    return now


async def read_reports(session: AsyncSession) -> tuple[datetime, list[Report]]:
    """Return the database's time and what the consumers report whose event loops respond."""
    rows = (await session.execute(_READ_REPORTS, {"beats": FRESH})).all()
    reports = [
        Report(
            frozenset(row.queues),
            row.reported_at,
            Received(
                {queue: datetime.fromisoformat(at) for queue, at in row.received.items()}, frozenset(row.held or ())
            ),
        )
        for row in rows
        if row.queues is not None
    ]
    return rows[0].now, reports


async def remove_consumer(connection: Driver | DriverPool, consumer_id: UUID) -> None:
    """Delete the row of a consumer that stops: it can claim nothing more."""
    await connection.execute(_REMOVE, consumer_id)


async def remove_silent_consumers(session: AsyncSession, silent_for: float) -> None:
    """Delete the rows of consumers that are presumed dead, have been silent for so many seconds and have claimed nothing."""
    await session.execute(_REMOVE_SILENT, {"silent_for": silent_for})
