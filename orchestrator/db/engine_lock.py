"""The switch that pauses the engine. While it is set, nothing is claimed, started, resumed or published again."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.status import IS_PAUSED

_READ = text(f"SELECT {IS_PAUSED}")

_SET = text(
    """
    WITH changed AS (
        UPDATE engine_settings SET global_lock = :paused, changed_by = :author, changed_at = now()
         WHERE global_lock IS DISTINCT FROM :paused
        RETURNING global_lock
    )
    INSERT INTO engine_settings_log (global_lock, author) SELECT global_lock, :author FROM changed
    """
)


async def is_paused(session: AsyncSession) -> bool:
    """Return whether the engine is paused."""
    return bool(await session.scalar(_READ))


async def set_paused(session: AsyncSession, paused: bool, author: str) -> None:
    """Pause or unpause the engine, and record who did it; repeating it changes and records nothing."""
    await session.execute(_SET, {"paused": paused, "author": author})
