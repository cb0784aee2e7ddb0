"""Whether the program is alive, and whether it can serve."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from orchestrator.api.bodies import Router
from orchestrator.api.context import Context
from orchestrator.db.schedules.overdue import count_overdue_schedules
from orchestrator.db.session import CONNECTION_ERRORS

router = Router(prefix="/health", tags=["health"])

PATIENCE: Final = 2.0
"""Seconds for the database to answer: probes give up soon after."""


class Readiness(BaseModel):
    """Whether the program can serve, and what it depends on."""

    status: Literal["ready", "not ready"]
    database: Literal["reachable", "away"]
    broker: Literal["reachable", "away"]
    stopping: bool
    schedules: Literal["on time", "overdue", "unknown"]


@router.get("/live", operation_id="get_liveness")
async def live() -> dict[str, str]:
    """Answer: the process is alive, whatever its servers do."""
    return {"status": "alive"}


@router.get(
    "/ready",
    operation_id="get_readiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "It cannot serve now."}},
)
async def ready(context: Context) -> Response:
    """Say whether database and broker can be reached; 503 when the database cannot, or the program is stopping.

    Without the broker reading works, and what is started is committed and runs once the broker is back. Schedules are overdue
    when one has been due for a minute: no coordinator runs that has its workflow.
    """
    database = await context.database.answers(PATIENCE)
    serves = database and not context.stopping.is_set()
    return JSONResponse(
        {
            "status": "ready" if serves else "not ready",
            "database": "reachable" if database else "away",
            "broker": "reachable" if context.publisher.is_ready else "away",
            "stopping": context.stopping.is_set(),
            "schedules": await _look_at_schedules(context) if database else "unknown",
        },
        HTTPStatus.OK if serves else HTTPStatus.SERVICE_UNAVAILABLE,
    )


async def _look_at_schedules(context: Context) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            return "overdue" if await count_overdue_schedules(context.database.pool) else "on time"
    except CONNECTION_ERRORS:
        return "unknown"
