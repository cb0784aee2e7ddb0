"""What a step leaves behind goes at once: a collector that has to look for it stops the whole program meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from consumers.runner import Runner
from orchestrator.db.session import Database
from tests.integration.engine_bench import Bench, bench_of
from tests.integration.run_ahead_bench import MANY, WORKFLOWS, consumer, many, rest, take


@pytest.fixture
def collector_at_rest() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_steps_leave_nothing_to_the_garbage_collector(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, collector_at_rest: None
) -> None:
    async with bench_of(database, amqp_url, monkeypatch, "tests.integration.run_ahead_bench", *WORKFLOWS) as bench:
        one, _ = await consumer(bench, MANY)
        await _run(bench, one)  # what is made once
        gc.collect()
        await _run(bench, one)
        found = gc.collect()
    assert found < MANY, f"{found} objects were left by {MANY} steps"


async def _run(bench: Bench, one: Runner) -> None:
    await take(one, await bench.command(await bench.start(many.name)))
    await rest(one)
