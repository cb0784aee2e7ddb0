"""The switch that pauses the engine. While it is set, nothing is claimed, started, resumed or published again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import text

from orchestrator.db.status import IS_PAUSED

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from orchestrator.db.session import Driver

_IS_PAUSED = text(f"SELECT {IS_PAUSED}")
_READ = "SELECT global_lock AS paused, changed_by, changed_at, reason FROM engine_settings"

_SET = text(
    """
    WITH changed AS (
        UPDATE engine_settings SET global_lock = :paused, changed_by = :author, changed_at = now(), reason = :reason
         WHERE global_lock IS DISTINCT FROM :paused
        RETURNING global_lock, reason
    )
    INSERT INTO engine_settings_log (global_lock, author, reason)
    SELECT global_lock, :author, reason FROM changed
    """
)


@dataclass(frozen=True, slots=True)
class EngineLock:
    """Whether the engine is paused, and who has paused or unpaused it last, when and why.

    Args:
        changed_by: empty when it was never paused.
    """

    paused: bool
    changed_by: str
    changed_at: datetime
    reason: str | None


async def is_paused(session: AsyncSession) -> bool:
    """Return whether the engine is paused."""
    return bool(await session.scalar(_IS_PAUSED))


async def read_engine_lock(connection: Driver) -> EngineLock:
    """Return whether the engine is paused, by whom, since when and why."""
    (row,) = await connection.fetch(_READ)
    return EngineLock(**row)


async def set_paused(session: AsyncSession, paused: bool, author: str, reason: str | None) -> None:
    """Pause or unpause the engine, and record who did it and why; repeating it changes and records nothing."""
    await session.execute(_SET, {"paused": paused, "author": author, "reason": reason})
