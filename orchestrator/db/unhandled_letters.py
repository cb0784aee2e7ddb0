"""The dead letters that the broker has made before a coordinator had handled their messages, and how often these were begun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from orchestrator.db.session import DriverPool

_LIST = "SELECT letter_id FROM dead_letters WHERE unhandled AND closed_at IS NULL ORDER BY died_at, letter_id LIMIT $1"
_BEGIN = text("UPDATE dead_letters SET begun = begun + 1 WHERE letter_id = :letter_id AND begun < 1000 RETURNING begun")
_LEAVE = text(
    "UPDATE dead_letters SET unhandled = false, reason = :reason WHERE letter_id = :letter_id AND closed_at IS NULL"
)


async def list_unhandled(pool: DriverPool, limit: int) -> Sequence[UUID]:
    """Return the ids of open letters that are to be put back, in the order in which they died.

    Each coordinator asks every second: without a transaction it is one statement instead of four.
    """
    return [row["letter_id"] for row in await pool.fetch(_LIST, limit)]


async def note_begun(session: AsyncSession, letter_id: UUID) -> int:
    """Record that a program begins to handle the message of a letter; return for how many times, 0 without such a letter."""
    return int(await session.scalar(_BEGIN, {"letter_id": letter_id}) or 0)


async def leave_to_people(session: AsyncSession, letter_id: UUID, reason: str) -> None:
    """Record why a letter is not put back; from now on it is one like others."""
    await session.execute(_LEAVE, {"letter_id": letter_id, "reason": reason})
