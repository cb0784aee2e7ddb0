"""One attempt of one step, run as a consumer runs it but without servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.engine.events import StepFailed, StepSucceeded
from orchestrator.engine.process import Process
from orchestrator.services.steps import Attempt, execute
from orchestrator.settings import Limits
from orchestrator.threads import Threads
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Step, step
from tests.unit.walk import blank, plan_of

LIMITS = Limits(redispatch_after=5, step_timeout=30, state_soft_limit=1000, state_hard_limit=2000)


class Bare(Attempt):
    """An attempt without servers, of a step that gets these parameters from the engine."""

    def __init__(
        self,
        what: Step | Callable[..., Any],
        process: Process | None = None,
        token: str | None = None,
        **engine: object,
    ) -> None:
        plan = plan_of(what if isinstance(what, Step) else step("s")(what))
        name = plan.leaves[0].step.name
        super().__init__(replace(process or blank(ProcessStatus.RUNNING), step=name), plan, token)
        self._engine = engine

    def engine_arguments(self, _: Limits) -> dict[str, object]:
        return self._engine


async def attempt(
    what: Step | Callable[..., Any],
    state: dict[str, Any] | None = None,
    *,
    limits: Limits = LIMITS,
    token: str | None = None,
    failures: int = 0,
    **engine: object,
) -> StepSucceeded | StepFailed:
    """Run a step, or a function as one, and say what came of it."""
    process = replace(blank(ProcessStatus.RUNNING), attempt=3, state=state or {}, failures=failures)
    with Threads("test", 1) as threads:
        return await execute(Bare(what, process, token, **engine), limits, threads)


async def failure(
    what: Step | Callable[..., Any], state: dict[str, Any] | None = None, *, limits: Limits = LIMITS, **more: Any
) -> StepFailed:
    """As :func:`attempt`, of a step that must fail."""
    outcome = await attempt(what, state, limits=limits, **more)
    assert isinstance(outcome, StepFailed), outcome
    return outcome
