"""Pause the engine: nothing is claimed or dispatched, running steps finish. Safe at any moment, any number of times."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import engine_lock
from orchestrator.db.processes.claims import count_claims
from orchestrator.db.processes.due import make_running_due


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether the engine is paused, and how many steps run."""

    paused: bool
    running: int

    @property
    def word(self) -> str:
        """RUNNING, PAUSING while steps still run, or PAUSED."""
        if not self.paused:
            return "RUNNING"
        return "PAUSING" if self.running else "PAUSED"


async def set_paused(session: AsyncSession, paused: bool, user: str) -> EngineStatus:
    """Pause or unpause; unpausing makes every running process due."""
    await engine_lock.set_paused(session, paused, user)
    if not paused:
        await make_running_due(session)
    return await engine_status(session)


async def engine_status(session: AsyncSession) -> EngineStatus:
    """Return whether the engine is paused, and how many steps run."""
    return EngineStatus(await engine_lock.is_paused(session), await count_claims(session))
