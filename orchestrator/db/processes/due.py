"""Finding what is due: by the database's clock, in batches, without two coordinators getting in each other's way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import ConsumerRow, EngineSettingsRow, ProcessRow

MAX_INTERVAL = 600.0
"""Seconds between two publications of the same command, at most."""

_FIND = text(
    """
    (SELECT process_id, workflow, step, status, 0::float8 AS waited FROM processes
      WHERE wake_at <= now() ORDER BY wake_at LIMIT :batch)
    UNION ALL
    (SELECT process_id, workflow, step, status, EXTRACT(EPOCH FROM now() - updated_at)::float8 FROM processes
      WHERE status = 'running' AND claimed_by IS NULL AND due_at <= now() LIMIT :batch)
    """
)

# Taken for this round by moving its due_at on, so that no other coordinator takes it as well. The interval doubles with
# each round and is spread by a fifth either way, or a thousand commands that were lost together would come back together.
_TAKE_RUNNING = text(
    """
    UPDATE processes
       SET dispatches = dispatches + 1,
           due_at = now() + LEAST(:first * power(2, LEAST(dispatches, 20)), :most) * (0.8 + 0.4 * random())
                            * interval '1 second'
     WHERE process_id IN (SELECT process_id FROM processes
                           WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL AND due_at <= now()
                           ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING process_id
    """
)


_POSTPONE = text(
    """
    UPDATE processes SET due_at = now() + :seconds * (0.8 + 0.4 * random()) * interval '1 second'
     WHERE process_id IN (SELECT process_id FROM processes
                           WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL
                           ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    """
)


_LOOK_LATER = text(
    """
    UPDATE processes
       SET due_at = CASE WHEN status = 'running' THEN now() + :seconds * interval '1 second' ELSE due_at END,
           wake_at = CASE WHEN status <> 'running' THEN now() + :seconds * interval '1 second' END
     WHERE process_id = :process_id AND claimed_by IS NULL
    """
)


@dataclass(frozen=True, slots=True)
class Due:
    """A process that somebody must look at; ``waited`` is the seconds since it last moved."""

    process_id: UUID
    workflow: str
    step: str | None
    status: str
    waited: float


async def database_time(session: AsyncSession) -> datetime:
    """The time by the one clock that deadlines are compared with."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return now


async def is_paused(session: AsyncSession) -> bool:
    """Whether the engine is paused."""
    return bool(await session.scalar(select(EngineSettingsRow.global_lock)))


async def find_due(session: AsyncSession, batch: int) -> list[Due]:
    """What is due, without taking it."""
    rows = await session.execute(_FIND, {"batch": batch})
    return [Due(*row) for row in rows]


async def take_running(session: AsyncSession, ids: list[UUID], first: float) -> list[UUID]:
    """Of these running processes, take those that are still due for publishing their command again."""
    rows = await session.scalars(_TAKE_RUNNING, {"first": first, "most": MAX_INTERVAL, "ids": ids})
    return list(rows)


async def postpone(session: AsyncSession, ids: list[UUID], seconds: float) -> None:
    """Look at these processes again later: their commands wait in a queue."""
    await session.execute(_POSTPONE, {"ids": ids, "seconds": seconds})


async def look_later(session: AsyncSession, process_id: UUID, seconds: float) -> None:
    """Leave a process alone for a while that this program cannot do anything for."""
    await session.execute(_LOOK_LATER, {"process_id": process_id, "seconds": seconds})


async def lost_claims(session: AsyncSession, presumed_dead_after: float, batch: int) -> list[tuple[ProcessRow, str]]:
    """Lock processes whose consumer has been silent for too long, or is not known at all, with the consumer's name."""
    silent = text("now() - :after * interval '1 second'").bindparams(after=presumed_dead_after)
    query = (
        select(ProcessRow, func.coalesce(ConsumerRow.name, "unknown"))
        .outerjoin(ConsumerRow, ConsumerRow.consumer_id == ProcessRow.claimed_by)
        .where(
            ProcessRow.status == "running",
            ProcessRow.claimed_by.is_not(None),
            or_(ConsumerRow.consumer_id.is_(None), ConsumerRow.seen_at < silent),
        )
        .order_by(ProcessRow.claimed_by, ProcessRow.process_id)
        .limit(batch)
        .with_for_update(of=ProcessRow, key_share=True, skip_locked=True)
    )
    return [(row, str(name)) for row, name in (await session.execute(query)).all()]


async def forget_consumers(session: AsyncSession, after: float) -> None:
    """Remove the rows of consumers that have been silent for long and hold nothing."""
    await session.execute(
        text(
            "DELETE FROM consumers c WHERE c.seen_at < now() - :after * interval '1 second'"
            " AND NOT EXISTS (SELECT FROM processes p WHERE p.status = 'running' AND p.claimed_by = c.consumer_id)"
        ),
        {"after": after},
    )
