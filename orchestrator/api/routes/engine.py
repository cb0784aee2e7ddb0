"""Whether the engine is paused; pause it and let it go on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.bodies import Router
from orchestrator.api.callers import Caller, Role, requires
from orchestrator.api.context import Context
from orchestrator.db.status import EngineStatus, read_engine_status
from orchestrator.services.pause import set_paused
from orchestrator.text import MAX_REASON

router = Router(prefix="/settings", tags=["engine"])


class EngineState(BaseModel):
    """Whether the engine is paused, how many steps run, and who has paused or unpaused it last, when and why."""

    global_lock: bool
    global_status: Literal["RUNNING", "PAUSING", "PAUSED"]
    running_processes: int = Field(description="Processes whose step runs at this moment.")
    changed_by: str | None
    changed_at: datetime | None
    reason: str | None

    @classmethod
    def of(cls, status: EngineStatus) -> EngineState:
        """Return what is answered about a status."""
        return cls.model_construct(
            global_lock=status.paused,
            global_status=status.word,
            running_processes=status.running,
            changed_by=status.changed_by,
            changed_at=status.changed_at,
            reason=status.reason,
        )


class Switch(BaseModel):
    """Pause the engine or let it go on."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"global_lock": True, "reason": "the IMS is upgraded until 11:00"}]},
    )

    global_lock: bool = Field(strict=True)
    reason: str | None = Field(None, max_length=MAX_REASON, description="Everybody who asks for the status sees it.")


@router.get("/status", operation_id="get_engine_status")
async def get_status(context: Context, _: Annotated[Caller, requires(Role.READ)]) -> EngineState:
    """Return whether the engine runs, and who has paused it since when and why."""
    async with context.database.pool.acquire() as connection:
        return EngineState.of(await read_engine_status(connection))


@router.put("/status", operation_id="set_engine_status")
async def set_status(
    context: Context, caller: Annotated[Caller, requires(Role.OPERATE)], switch: Switch
) -> EngineState:
    """Pause the engine, so that no step is claimed in any program, or let it go on. Repeating it changes nothing."""
    async with context.transaction() as session:
        return EngineState.of(await set_paused(session, switch.global_lock, caller.name, switch.reason))
