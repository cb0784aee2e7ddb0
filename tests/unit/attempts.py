"""One attempt of one step, run as a consumer runs it but without servers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from orchestrator.engine.events import StepFailed, StepSucceeded
from orchestrator.services.steps import StepLimits, execute
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Step, step
from tests.unit.walk import blank, plan_of

LIMITS = StepLimits(timeout=30, state_soft_limit=1000, state_hard_limit=2000)


async def attempt(
    what: Step | Callable[..., Any],
    state: dict[str, Any] | None = None,
    *,
    limits: StepLimits = LIMITS,
    secret: str | None = None,
    failures: int = 0,
    **engine: object,
) -> StepSucceeded | StepFailed:
    """Run a step, or a function as one, and say what came of it."""
    leaf = plan_of(what if isinstance(what, Step) else step("s")(what)).leaves[0]
    process = replace(
        blank(ProcessStatus.RUNNING), step=leaf.step.name, attempt=3, state=state or {}, failures=failures
    )
    with ThreadPoolExecutor(1) as threads:
        return await execute(leaf, process, engine, limits, threads, secret=secret)


async def failure(
    what: Step | Callable[..., Any], state: dict[str, Any] | None = None, *, limits: StepLimits = LIMITS, **more: Any
) -> StepFailed:
    """As :func:`attempt`, of a step that must fail."""
    outcome = await attempt(what, state, limits=limits, **more)
    assert isinstance(outcome, StepFailed), outcome
    return outcome
