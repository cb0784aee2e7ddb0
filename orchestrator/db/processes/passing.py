"""Let time pass for all processes at once, for tests: everything that they wait for comes earlier."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import read_time

_PROCESSES = text(
    """
    UPDATE processes
       SET due_at = due_at - :seconds * interval '1 second', wake_at = wake_at - :seconds * interval '1 second'
     WHERE due_at IS NOT NULL OR wake_at IS NOT NULL
    """
)
_CALLBACKS = text(
    "UPDATE callbacks SET deadline = deadline - :seconds * interval '1 second' WHERE deadline IS NOT NULL"
)


async def pass_time(session: AsyncSession, seconds: float) -> None:
    """Bring forward by so many seconds what processes wait for: retries, deadlines, commands to publish again."""
    await session.execute(_PROCESSES, {"seconds": seconds})
    await session.execute(_CALLBACKS, {"seconds": seconds})


async def seconds_until(session: AsyncSession, moment: datetime) -> float:
    """Return how many seconds a moment is away by the database's clock; 0 when it has passed."""
    return max((moment - await read_time(session)).total_seconds(), 0.0)
