"""Which schedules the versions of the code declare, and which version is in force: the one with the highest number.

No clock and no version number of a project decides which of two is newer. Declarations that were never seen before are newer than
all others. An older version comes into force again when no program with a newer one has been seen for a while: so a restart of an
older program during a rolling deploy changes nothing, and a rollback needs no command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.schedules.rows import COLUMNS, StoredSchedule, limit_idleness
from orchestrator.db.session import to_jsonb

_KEY: Final = 8317600022
"""Of no other lock. Coordinators that start at the same time reconcile one after the other."""

_LOCK = text(f"SELECT pg_advisory_xact_lock({_KEY})")
_NEXT = "(SELECT COALESCE(max(number), 0) + 1 FROM schedule_declarations WHERE source = :source)"
_SEE = text(
    f"""
    INSERT INTO schedule_declarations AS d (source, fingerprint, number, schedules, declared_by)
    VALUES (:source, :fingerprint, {_NEXT}, CAST(:schedules AS jsonb), :author)
        ON CONFLICT (source, fingerprint) DO UPDATE
       SET seen_at = clock_timestamp(),
           number = CASE WHEN EXISTS (SELECT FROM schedule_declarations newer
                                       WHERE newer.source = d.source AND newer.number > d.number)
                          AND NOT EXISTS (SELECT FROM schedule_declarations newer
                                           WHERE newer.source = d.source AND newer.number > d.number
                                             AND newer.seen_at > clock_timestamp() - :patience * interval '1 second')
                         THEN {_NEXT} ELSE d.number END
    RETURNING number, number = {_NEXT} - 1 OR number = {_NEXT} AS is_in_force
    """  # noqa: S608 - built from constants
)
_LOCK_DROPPED = text(
    f"""
    SELECT {COLUMNS} FROM schedules s
     WHERE origin = 'code' AND declared ->> 'source' = :source AND name <> ALL (CAST(:names AS text[]))
     ORDER BY name FOR UPDATE OF s
    """  # noqa: S608 - built from constants
)
_COUNT = text(
    "SELECT count(*) FROM schedules WHERE origin = 'code' AND declared ->> 'source' = :source AND enabled AND deleted_at IS NULL"
)
_BREAK = text(
    "UPDATE schedules SET broken = :why WHERE name = :name AND origin = 'code' AND broken IS DISTINCT FROM :why"
)


async def come_into_force(
    session: AsyncSession, source: str, fingerprint: str, schedules: Mapping[str, Any], *, author: str, patience: float
) -> bool:
    """Record that a program with these declarations runs; return whether they are in force.

    The transaction has a lock from then on, for which other programs wait.

    Args:
        source: whose code they are of.
        schedules: name → definition.
        patience: seconds after which a program with newer declarations is gone that was not seen.
    """
    await limit_idleness(session)
    await session.execute(_LOCK)
    row = (
        await session.execute(
            _SEE,
            {
                "source": source,
                "fingerprint": fingerprint,
                "schedules": to_jsonb(schedules),
                "author": author,
                "patience": patience,
            },
        )
    ).one()
    return bool(row.is_in_force)


async def lock_dropped(session: AsyncSession, source: str, names: list[str]) -> list[StoredSchedule]:
    """Lock and return the schedules that code of this source has declared and that are none of these, by name."""
    rows = await session.execute(_LOCK_DROPPED, {"source": source, "names": names})
    return [StoredSchedule(**row) for row in rows.mappings()]


async def count_declared(session: AsyncSession, source: str) -> int:
    """Return how many schedules that code of this source has declared are enabled."""
    return int(await session.scalar(_COUNT, {"source": source}) or 0)


async def mark_broken(session: AsyncSession, name: str, why: str | None) -> None:
    """Record why a schedule that code declares cannot start anything, or by ``None`` that it can."""
    await session.execute(_BREAK, {"name": name, "why": why})
