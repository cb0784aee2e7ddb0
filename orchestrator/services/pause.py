"""Pausing the engine: nothing is claimed or dispatched; running steps finish. Safe at any moment, any number of times."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.tables import EngineSettingsRow, ProcessRow, SettingsChangeRow
from orchestrator.types import ProcessStatus


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Whether the engine is paused, and how many steps run at this moment."""

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
    changed = await session.execute(
        update(EngineSettingsRow)
        .where(EngineSettingsRow.global_lock.is_not(paused))
        .values(global_lock=paused, changed_by=user, changed_at=func.now())
        .returning(EngineSettingsRow.global_lock)
    )
    if changed.one_or_none() is not None:
        session.add(SettingsChangeRow(global_lock=paused, author=user))
    if not paused:
        await session.execute(
            update(ProcessRow)
            .where(ProcessRow.status == ProcessStatus.RUNNING.value, ProcessRow.claimed_by.is_(None))
            .values(due_at=func.now(), dispatches=0)
            .execution_options(synchronize_session=False)
        )
    return await engine_status(session)


async def engine_status(session: AsyncSession) -> EngineStatus:
    """Whether the engine is paused."""
    paused = await session.scalar(select(EngineSettingsRow.global_lock))
    running = await session.scalar(
        select(func.count())
        .select_from(ProcessRow)
        .where(ProcessRow.status == ProcessStatus.RUNNING.value, ProcessRow.claimed_by.is_not(None))
    )
    return EngineStatus(bool(paused), running or 0)
