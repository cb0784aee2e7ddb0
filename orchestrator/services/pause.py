"""Pause the engine: nothing is claimed or dispatched, running steps finish. Safe at any moment, any number of times."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import engine_lock
from orchestrator.db.engine_lock import EngineLock
from orchestrator.db.processes.due import make_running_due
from orchestrator.db.session import get_driver
from orchestrator.db.status import EngineStatus, read_engine_status
from orchestrator.services.texts import check_text
from orchestrator.text import MAX_REASON

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class PauseReport:
    """Logs that the engine was paused or unpaused, once, when a program first reads so."""

    known: EngineLock | None = None

    def report(self, found: EngineLock) -> None:
        """Log what was found, if it is news. A program that starts takes it for granted that the engine is not paused."""
        known, self.known = self.known, found
        if found == known or (known is None and not found.paused):
            return
        logger.warning(
            "engine paused: no step is claimed until it is unpaused" if found.paused else "engine unpaused",
            by=found.changed_by,
            at=found.changed_at.isoformat(timespec="seconds"),
            reason=found.reason,
        )


async def set_paused(session: AsyncSession, paused: bool, user: str, reason: str | None = None) -> EngineStatus:
    """Pause or unpause; unpausing makes every running process due. Repeating it leaves who did it first, and why.

    Raises:
        InvalidInputError: the reason is too long, or cannot be stored.
    """
    why = check_text(reason, "the reason", MAX_REASON) if reason else None
    await engine_lock.set_paused(session, paused, user, why or None)
    if not paused:
        await make_running_due(session)
    return await read_engine_status(await get_driver(session))
