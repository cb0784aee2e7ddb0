"""Pause the engine: nothing is claimed or dispatched, running steps finish. Safe at any moment, any number of times."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import engine_lock
from orchestrator.db.processes.due import make_running_due
from orchestrator.db.session import get_driver
from orchestrator.db.status import EngineStatus, read_engine_status


async def set_paused(session: AsyncSession, paused: bool, user: str) -> EngineStatus:
    """Pause or unpause; unpausing makes every running process due."""
    await engine_lock.set_paused(session, paused, user)
    if not paused:
        await make_running_due(session)
    return await read_engine_status(await get_driver(session))
