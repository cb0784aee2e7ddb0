"""What a step leaves in the log: its author's lines, its failure, and that it hangs."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from consumers.long_steps import FIRST, LongSteps
from orchestrator.db.session import Database
from orchestrator.log import configure_logging
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.waiting import until

logger = logging.getLogger("authors")
GATES: dict[str, Any] = {}


@step("Await and log")
async def await_and_log() -> None:
    logger.info("in the step")
    await asyncio.gather(asyncio.to_thread(logger.info, "in a thread"), asyncio.create_task(log_in_task()))
    fork = multiprocessing.get_context("fork").Process(target=logger.info, args=("in a fork",))
    fork.start()
    await asyncio.to_thread(fork.join)


async def log_in_task() -> None:
    logger.info("in a task")


@workflow("Awaits and logs")
def awaits_and_logs() -> StepList:
    return init >> await_and_log >> done


@step("Log in a plain function")
def log_in_plain_function() -> None:
    logger.info("in a plain function")
    raise ValueError("told in its traceback")


@workflow("Logs in a plain function")
def logs_plainly() -> StepList:
    return init >> log_in_plain_function >> done


@step("Hang")
async def hang() -> None:
    await wait_within()


async def wait_within() -> None:
    await GATES["async"].wait()


@workflow("Hangs")
def hangs() -> StepList:
    return init >> hang >> done


@step("Hang in a thread")
def hang_in_thread() -> None:
    GATES["thread"].wait(60)


@workflow("Hangs in a thread")
def hangs_in_thread() -> StepList:
    return init >> hang_in_thread >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Provide the engine with the workflows of this module."""
    flows = awaits_and_logs, logs_plainly, hangs, hangs_in_thread
    async with bench_of(database, amqp_url, monkeypatch, __name__, *flows) as bench:
        yield bench


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Provide what configures the log as a program does, until the end of the test."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level

    def configure(*args: Any, **options: Any) -> None:
        configure_logging(*args, **options)
        structlog.configure(cache_logger_on_first_use=False)  # other tests use the engine's loggers, too

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def read(capfd: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Return what was written, by the event."""
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    return {one["event"]: one for one in found}


async def test_authors_lines_have_the_fields_of_the_process_in_tasks_threads_and_forks(
    bench: Bench, configure: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    configure("json", "info")
    process_id = await bench.run("awaits_and_logs")
    said = read(capfd)
    for place in ("the step", "a thread", "a task", "a fork"):
        line = said[f"in {place}"]
        fields = [line.get(name) for name in ("process_id", "workflow", "step", "attempt", "logger", "level")]
        assert fields == [str(process_id), "awaits_and_logs", "Await and log", 1, "authors", "info"], place


@pytest.mark.parametrize("tracebacks", [False, True])
async def test_a_plain_function_logs_as_well_and_its_failure_has_a_traceback_where_that_is_wanted(
    bench: Bench, configure: Callable[..., None], capfd: pytest.CaptureFixture[str], *, tracebacks: bool
) -> None:
    configure("json", "info", {"consumers": "debug"}, tracebacks=tracebacks)
    process_id = await bench.run("logs_plainly")
    said = read(capfd)
    assert said["in a plain function"]["process_id"] == str(process_id)
    assert said["step failed"]["error"] == "ValueError: told in its traceback"
    assert ("in log_in_plain_function" in said["step failed"].get("exception", "")) is tracebacks


@pytest.mark.parametrize(
    ("workflow_name", "place"),
    [("hangs", "wait_within"), ("hangs_in_thread", "hang_in_thread")],
    ids=["async", "plain"],
)
async def test_a_step_that_hangs_is_reported_at_growing_intervals_with_its_place(
    bench: Bench, workflow_name: str, place: str
) -> None:
    GATES.update({"async": asyncio.Event(), "thread": threading.Event()})
    runner = await bench.runner()
    process_id = await bench.start(workflow_name)
    await runner.take(await bench.command(process_id))
    long = LongSteps(lambda: runner.attempts, timeout=900)
    began = time.monotonic()
    with capture_logs() as logs:

        def reports(seconds: float) -> list[Any]:
            logs.clear()
            long.look(began + seconds)
            return [one for one in logs if one["event"] == "step still runs"]

        try:
            assert reports(FIRST - 5) == []
            await until(
                lambda: (
                    (activity := runner.attempts[0].activity) is not None
                    and (activity.thread_id is not None or (activity.call is not None and not activity.in_line))
                ),
                "the step has begun",
            )
            await asyncio.sleep(0)
            (first,) = reports(FIRST + 2)
            assert (first["process_id"], first["timeout"], first["log_level"]) == (str(process_id), 900, "info")
            assert first["at"].endswith(place)
            assert reports(2 * FIRST) == []
            assert len(reports(2 * FIRST + 6)) == 1
            assert len(reports(4 * FIRST)) == 0
        finally:
            GATES["async"].set()
            GATES["thread"].set()
            await until(lambda: runner.running == 0, "the step has ended")
        assert reports(1000) == []
