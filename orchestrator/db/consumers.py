"""The rows of consumers: who is alive, since when, and with how many slots. Only a consumer with a row can claim steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import DriverPool

IS_SILENT = "c.seen_at < now() - :silent_for * interval '1 second'"
"""SQL: whether the consumer ``c`` has sent no heartbeat for ``:silent_for`` seconds."""

_BEAT = """
INSERT INTO consumers (consumer_id, name, queues, concurrency) VALUES ($1, $2, $3, $4)
ON CONFLICT (consumer_id) DO UPDATE SET seen_at = now()
RETURNING now()
"""

_REMOVE = "DELETE FROM consumers WHERE consumer_id = $1"

_REMOVE_SILENT = text(
    f"""
    DELETE FROM consumers c
     WHERE {IS_SILENT}
       AND NOT EXISTS (SELECT FROM processes p WHERE p.status = 'running' AND p.claimed_by = c.consumer_id)
    """  # noqa: S608 - built from constants
)


async def record_heartbeat(
    pool: DriverPool, consumer_id: UUID, name: str, queues: Sequence[str], concurrency: int
) -> datetime:
    """Record that a consumer is alive; the first heartbeat inserts its row.

    Returns:
        The database's time.
    """
    now: datetime = await pool.fetchval(_BEAT, consumer_id, name, list(queues), concurrency)
    return now


async def remove_consumer(pool: DriverPool, consumer_id: UUID) -> None:
    """Delete the row of a consumer that stops: it can claim nothing more."""
    await pool.execute(_REMOVE, consumer_id)


async def remove_silent_consumers(session: AsyncSession, silent_for: float) -> None:
    """Delete the rows of consumers that have been silent for so many seconds and have claimed nothing."""
    await session.execute(_REMOVE_SILENT, {"silent_for": silent_for})
