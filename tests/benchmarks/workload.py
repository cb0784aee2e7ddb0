"""The workflows that the benchmark runs. The engine's programs import this module by ``ORCHESTRATOR_WORKFLOWS``."""

from __future__ import annotations

import asyncio

from orchestrator.registry import LazyWorkflowInstance
from orchestrator.workflow import Step, StepList, step, workflow

STEPS = 10
"""Of a process of the workflow ``bench``; the floor does as many."""

NAP = 5.0
"""Seconds that the one step of ``bench_sleeping`` sleeps."""


def _counting(number: int) -> Step:
    @step(f"step {number}")
    async def count(counter: int = 0) -> dict[str, int]:
        return {"counter": counter + 1}

    return count


@step("sleep")
async def sleep() -> None:
    await asyncio.sleep(NAP)


@workflow("Ten steps that do nothing but count")
def bench() -> StepList:
    return StepList(_counting(number) for number in range(1, STEPS + 1))


@workflow("One step that sleeps")
def bench_sleeping() -> StepList:
    return StepList([sleep])


LazyWorkflowInstance(__name__, "bench")
LazyWorkflowInstance(__name__, "bench_sleeping")
