"""The rows of consumers: who is alive, since when, by which limits, and with how many slots.

Only a consumer with a row can claim steps. How long it may be silent is written in its row: programs may have different settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
                       revisions)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb, $11)
ON CONFLICT (consumer_id) DO UPDATE
   SET seen_at = now(), responsive_at = now() - $9::float8 * interval '1 second', blocked_by = $10::jsonb
RETURNING now()
"""

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


async def record_heartbeat(
    connection: Driver | DriverPool,
    facts: ConsumerFacts,
    unresponsive_for: float = 0.0,
    blocked_by: Mapping[str, JSON] | None = None,
) -> datetime:
    """Record that a consumer is alive; the first heartbeat inserts its row.

    Args:
        unresponsive_for: for how many seconds its event loop has not responded.
        blocked_by: what blocks the loop.

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
    )
    return now


async def remove_consumer(connection: Driver | DriverPool, consumer_id: UUID) -> None:
    """Delete the row of a consumer that stops: it can claim nothing more."""
    await connection.execute(_REMOVE, consumer_id)


async def remove_silent_consumers(session: AsyncSession, silent_for: float) -> None:
    """Delete the rows of consumers that are presumed dead, have been silent for so many seconds and have claimed nothing."""
    await session.execute(_REMOVE_SILENT, {"silent_for": silent_for})
