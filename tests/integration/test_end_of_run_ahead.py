"""Whatever ends the steps that run ahead, the next one begins once, somewhere, and nobody is blamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from orchestrator.db.processes.advance import advance_many
from orchestrator.db.session import Database
from orchestrator.services.control import abort
from tests.integration import run_ahead_bench
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.run_ahead_bench import WORKFLOWS, consumer, gates, log, ran, rest, steps_in, take
from tests.integration.waiting import until


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    ran.clear()
    gates.clear()
    async with bench_of(database, amqp_url, monkeypatch, run_ahead_bench.__name__, *WORKFLOWS) as one:
        yield one
        for gate in gates.values():
            gate.set()


async def test_nothing_begins_while_the_engine_is_paused(bench: Bench) -> None:
    one, sent = await consumer(bench, 100)
    gates["Step 3"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 3" in ran, "the third step runs")
    await bench.database.pool.execute("UPDATE engine_settings SET global_lock = true")
    gates["Step 3"].set()
    await rest(one)
    assert ran == ["Step 1", "Step 2", "Step 3"]
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["attempt"]) == ("Step 4", None, 3)
    assert steps_in(sent.results[-1])[-1] == "Step 3"
    assert sent.results[-1].next is not None


async def test_nothing_begins_after_an_abort(bench: Bench) -> None:
    one, sent = await consumer(bench, 100)
    gates["Step 2"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 2" in ran, "the second step runs")
    async with bench.database.transaction() as session:
        message = await abort(session, process_id, "me", LIMITS)
    assert "Step 1" in steps_in(message), "its events are told with the abort's"
    gates["Step 2"].set()
    await rest(one)
    assert ran == ["Step 1", "Step 2"]
    assert all(result.next is None for result in sent.results)


async def test_a_consumer_that_was_silent_for_too_long_does_not_go_on(bench: Bench) -> None:
    """Its step is stored if nobody has released it; the next one is for others."""
    one, _ = await consumer(bench, 100)
    gates["Step 2"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 2" in ran, "the second step runs")
    await bench.database.pool.execute("UPDATE consumers SET seen_at = now() - interval '1 hour'")
    gates["Step 2"].set()
    await rest(one)
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], ran) == ("Step 3", None, ["Step 1", "Step 2"])


async def test_a_consumer_that_drains_goes_no_further_and_leaves_no_claim(bench: Bench) -> None:
    one, sent = await consumer(bench, 100)
    gates["Step 2"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 2" in ran, "the second step runs")
    draining = asyncio.create_task(one.drain(30))
    await asyncio.sleep(0)
    gates["Step 2"].set()
    await draining
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["lost"], ran) == ("Step 3", None, 0, ["Step 1", "Step 2"])
    assert [command.step for command in sent.commands] == ["Step 3"]


async def test_what_was_claimed_while_the_drain_began_is_given_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement was under way; the next step has not begun, and must cost it nothing."""
    one, sent = await consumer(bench, 100)
    store = advance_many
    refuse = one.refuse

    async def refuse_meanwhile(*args: Any) -> Any:
        stored = await store(*args)
        refuse()
        return stored

    monkeypatch.setattr("consumers.completion.advance_many", refuse_meanwhile)
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await rest(one)
    await one.drain(30)
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["lost"], row["interruptions"]) == ("Step 2", None, 0, 0)
    assert ran == ["Step 1"]
    assert [command.step for command in sent.commands] == ["Step 2"]
    assert sent.results[-1].entries[0].sequence == sent.results[-1].announced + 1, "with the events of the first"


async def test_a_drain_that_cancels_a_step_in_its_commit_leaves_no_claim(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = await consumer(bench, 100)
    store = advance_many
    stored, cancelled = asyncio.Event(), asyncio.Event()

    async def hold_the_answer(*args: Any) -> Any:
        found = await store(*args)
        if not stored.is_set():
            stored.set()
            await cancelled.wait()
        return found

    monkeypatch.setattr("consumers.completion.advance_many", hold_the_answer)
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await stored.wait()
    await one.drain(0.01)
    cancelled.set()
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["lost"], row["interruptions"]) == ("Step 2", None, 0, 0)
    assert ran == ["Step 1"]


async def test_nothing_runs_ahead_when_the_answer_to_a_commit_was_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is in the log once, and what was claimed with it is given back."""
    one, sent = await consumer(bench, 100)
    store = advance_many
    is_first = True

    async def lose_the_answer(*args: Any) -> Any:
        nonlocal is_first
        found = await store(*args)
        if is_first:
            is_first = False
            raise asyncpg.ConnectionDoesNotExistError("the answer is lost")
        return found

    monkeypatch.setattr("consumers.completion.advance_many", lose_the_answer)
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await rest(one)
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["lost"], row["interruptions"]) == ("Step 2", None, 0, 0)
    assert (ran, sent.looks) == (["Step 1"], 1)
    assert [entry[2] for entry in await log(bench, process_id)][-2:] == ["Step 1", "given back"]


async def test_an_error_after_the_commit_is_not_booked_on_a_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step before stays what it is; the next one is released."""
    one, _ = await consumer(bench, 100)

    def fail(*_: object) -> None:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr("consumers.run_ahead.Stretch.hold", fail)
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await rest(one)
    row = await bench.row(process_id)
    assert (row["step"], row["claimed_by"], row["status"]) == ("Step 2", None, "running")
    assert [entry[2] for entry in await log(bench, process_id)][-2:] == ["Step 1", "given back"]
    assert ran == ["Step 1"]
