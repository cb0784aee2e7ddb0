"""The workflows that the benchmark runs. The engine's programs import this module by ``ORCHESTRATOR_WORKFLOWS``."""

from __future__ import annotations

import asyncio
import os
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import wait_fixed

from orchestrator.registry import LazyWorkflowInstance
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import Step, StepList, retrystep, step, workflow
from orchestrator.workflows.utils import task

ELSEWHERE = "elsewhere"
"""The queue of the step of ``bench_elsewhere``."""

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


SHORT, LONG = 5, 1000
"""Steps of ``bench_short`` and ``bench_long``."""


@workflow("A few steps that do nothing but count")
def bench_short() -> StepList:
    return StepList(_counting(number) for number in range(1, SHORT + 1))


@workflow("So many steps that others must not wait for their end")
def bench_long() -> StepList:
    return StepList(_counting(number) for number in range(1, LONG + 1))


BALLAST_VARIABLE = "BENCH_BALLAST"
"""Names the environment variable with the bytes that the first step of ``bench_heavy`` puts into the state."""


@step("load")
async def load() -> dict[str, str]:
    # Not one character again and again: that becomes a few bytes when PostgreSQL compresses it.
    return {"ballast": os.urandom(int(os.environ[BALLAST_VARIABLE]) // 2).hex()}


@workflow("Ten steps, after the first of which the state is large")
def bench_heavy() -> StepList:
    return StepList([load, *map(_counting, range(2, STEPS + 1))])


HUNDRED = 100


@workflow("A hundred steps that do nothing but count")
def bench_hundred() -> StepList:
    return StepList(_counting(number) for number in range(1, HUNDRED + 1))


@step("sleep")
async def sleep() -> None:
    await asyncio.sleep(NAP)


NAPS = 5
"""Steps of ``bench_napping``."""


def _napping(number: int) -> Step:
    @step(f"nap {number}")
    async def nap() -> None:
        await asyncio.sleep(0.05)

    return nap


@workflow("Steps that sleep for 50 ms")
def bench_napping() -> StepList:
    return StepList(_napping(number) for number in range(1, NAPS + 1))


@retrystep("fail once", retry=RetryPolicy(wait=wait_fixed(3600)))
async def fail_once(idempotency_key: str) -> None:
    if idempotency_key not in _FAILED:
        _FAILED.add(idempotency_key)
        raise ConnectionError("the first try fails")
    _FAILED.discard(idempotency_key)


_FAILED: set[str] = set()


@workflow("One step that is tried twice")
def bench_retried() -> StepList:
    return StepList([fail_once])


@step("nothing elsewhere", queue=ELSEWHERE)
async def nothing_elsewhere() -> None:
    pass


@workflow("One step of another queue that does nothing")
def bench_elsewhere() -> StepList:
    return StepList([nothing_elsewhere])


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


FIVE = 5
"""Steps of ``bench_five``, each of which uses what a consumer has few of: a connection, a thread."""

HOLD = 10.0
"""Seconds for which the steps of tasks hold what they use."""


def _using(number: int) -> Step:
    @step(f"step {number}")
    async def read(session: AsyncSession, counter: int = 0) -> dict[str, int]:
        await session.execute(text("SELECT 1"))
        return {"counter": counter + 1}

    return read


@step("think")
def think(counter: int = 0) -> dict[str, int]:
    return {"counter": counter + 1}


@workflow("Five steps: four read from the database, one is a plain function")
def bench_five() -> StepList:
    return StepList([*map(_using, range(1, FIVE)), think])


@task("A task that does nothing")
def bench_quick() -> StepList:
    return StepList([nothing])


@step("query")
async def query(session: AsyncSession) -> None:
    await session.execute(text("SELECT pg_sleep(0.05)"))


@task("A task that queries for 50 ms")
def bench_query() -> StepList:
    return StepList([query])


@step("hold a session")
async def hold(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1"))
    await asyncio.sleep(HOLD)


@task("A task that holds a session")
def bench_session() -> StepList:
    return StepList([hold])


@step("wait")
async def wait() -> None:
    await asyncio.sleep(HOLD)


@task("A task that waits")
def bench_slot() -> StepList:
    return StepList([wait])


@step("hold a thread")
def occupy() -> None:
    time.sleep(HOLD)


@task("A task that holds a thread")
def bench_thread() -> StepList:
    return StepList([occupy])


TASKS = ("bench_quick", "bench_query", "bench_session", "bench_slot", "bench_thread")

ALL = (
    "bench",
    "bench_sleeping",
    "bench_resting",
    "bench_deadly",
    "bench_noop",
    "bench_five",
    "bench_short",
    "bench_long",
    "bench_heavy",
    "bench_hundred",
    "bench_napping",
    "bench_retried",
    "bench_elsewhere",
    *TASKS,
)

for _name in ALL:
    LazyWorkflowInstance(__name__, _name)
