"""Whether the program is alive, and whether it can serve."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from orchestrator.api.bodies import Router
from orchestrator.api.context import Context

router = Router(prefix="/health", tags=["health"])

PATIENCE: Final = 2.0
"""Seconds for the database to answer: probes give up soon after."""


class Readiness(BaseModel):
    """Whether the program can serve, and what it depends on."""

    status: Literal["ready", "not ready"]
    database: Literal["reachable", "away"]
    broker: Literal["reachable", "away"]
    stopping: bool


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

    Without the broker reading works, and what is started is committed and runs once the broker is back.
    """
    database = await context.database.answers(PATIENCE)
    serves = database and not context.stopping.is_set()
    return JSONResponse(
        {
            "status": "ready" if serves else "not ready",
            "database": "reachable" if database else "away",
            "broker": "reachable" if context.publisher.is_ready else "away",
            "stopping": context.stopping.is_set(),
        },
        HTTPStatus.OK if serves else HTTPStatus.SERVICE_UNAVAILABLE,
    )
