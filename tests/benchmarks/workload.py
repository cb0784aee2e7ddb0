"""The workflows that the benchmark runs. The engine's programs import this module by ``ORCHESTRATOR_WORKFLOWS``."""

from __future__ import annotations

import asyncio
import os

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


REST_VARIABLE = "BENCH_REST"
"""Names the environment variable with the seconds that the step of ``bench_resting`` sleeps."""

DEADLY_AFTER = 1.0
"""Seconds until the step of ``bench_deadly`` ends the process that runs it."""


@step("sleep")
async def sleep() -> None:
    await asyncio.sleep(NAP)


@workflow("Ten steps that do nothing but count")
def bench() -> StepList:
    return StepList(_counting(number) for number in range(1, STEPS + 1))


@workflow("One step that sleeps")
def bench_sleeping() -> StepList:
    return StepList([sleep])


@step("rest")
async def rest() -> None:
    await asyncio.sleep(float(os.environ[REST_VARIABLE]))


@workflow("One healthy step that takes its time")
def bench_resting() -> StepList:
    return StepList([rest])


@step("kill")
async def kill() -> None:
    await asyncio.sleep(DEADLY_AFTER)
    os._exit(9)


@workflow("One step that ends the process that runs it")
def bench_deadly() -> StepList:
    return StepList([kill])


@step("nothing")
async def nothing() -> None:
    pass


@workflow("One step that does nothing")
def bench_noop() -> StepList:
    return StepList([nothing])


LazyWorkflowInstance(__name__, "bench")
LazyWorkflowInstance(__name__, "bench_sleeping")
for _name in ("bench_resting", "bench_deadly", "bench_noop"):
    LazyWorkflowInstance(__name__, _name)
