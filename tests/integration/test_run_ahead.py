"""A consumer goes on with the next step itself: with which, for how long, and what is sent meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from consumers.execution import run_attempt
from consumers.run_ahead import SHORT, Budget
from consumers.runner import SETTLING_TIME
from orchestrator.db.processes.advance import advance_many
from orchestrator.db.processes.claims import claim_many, list_claim_times, lock_lost_claims
from orchestrator.db.session import Database
from orchestrator.services import control
from orchestrator.services.reconcile import release_lost_claim
from tests.integration import run_ahead_bench
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.run_ahead_bench import (
    MANY,
    WORKFLOWS,
    consumer,
    gates,
    log,
    mended,
    play,
    play_on,
    ran,
    rest,
    steps_in,
    take,
)
from tests.integration.waiting import until

left_behind: ContextVar[str] = ContextVar("left_behind", default="nothing")


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    ran.clear()
    gates.clear()
    async with bench_of(database, amqp_url, monkeypatch, run_ahead_bench.__name__, *WORKFLOWS) as one:
        yield one
        for gate in gates.values():
            gate.set()


async def test_a_process_of_many_steps_needs_one_claim_one_statement_a_step_and_one_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            statements.append(function.__name__)
            return await function(*args, **options)

        return call

    monkeypatch.setattr("consumers.runner.claim_many", counting(claim_many))
    monkeypatch.setattr("consumers.completion.advance_many", counting(advance_many))
    process_id, sent = await play(bench, 100, "many")
    assert (await bench.row(process_id))["status"] == "completed"
    assert statements == ["claim_many"] + ["advance_many"] * MANY
    events = [entry.sequence for message in sent.results for entry in message.entries]
    assert sorted(set(events)) == list(range(4, len(await log(bench, process_id)) + 1)), "nothing is missing"
    assert [one.next for one in sent.results] == [None] * len(sent.results)


@pytest.mark.parametrize("name", ["mixed", "many"])
async def test_whatever_the_budget_the_log_the_state_and_the_order_are_the_same(bench: Bench, name: str) -> None:
    """Also for a step that changes the state that it is given: only what it returns counts."""
    found = []
    for budget in (0, 1, 2, 3, 7, 100):
        ran.clear()
        process_id, _ = await play(bench, budget, name)
        row = await bench.row(process_id)
        entries = await log(bench, process_id)
        found.append((row["status"], row["attempt"], row["state"], entries, list(ran)))
    assert found[0][0] in ("completed", "awaiting_callback")
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(("budget", "name", "results"), [(3, "many", 3), (0, "many", MANY), (9, "by_threes", 4)])
async def test_a_spent_budget_ends_in_one_result_with_what_all_its_steps_have_done(
    bench: Bench, budget: int, name: str, results: int
) -> None:
    """A workflow's own budget counts, unless steps do not run ahead at all."""
    process_id, sent = await play(bench, budget, name)
    with_command = [one for one in sent.results if one.next is not None]
    assert len(with_command) == results - 1
    assert (await bench.row(process_id))["attempt"] == MANY
    last: dict[str, int] = {}
    for message in sent.results:
        sequences = [entry.sequence for entry in message.entries]
        assert sequences == list(range(message.announced + 1, sequences[-1] + 1)), "what follows what is confirmed"
        last[message.workflow] = sequences[-1]
    assert [step for message in with_command for step in steps_in(message)] == [
        f"Step {number + 1}" for number in range(MANY - MANY // results)
    ]


async def test_a_task_a_step_of_another_queue_and_a_workflow_without_budget_do_not_run_ahead(bench: Bench) -> None:
    for name in ("a_task", "elsewhere"):
        one, sent = await consumer(bench, 100)
        process_id = await bench.start(name)
        await take(one, await bench.command(process_id))
        await rest(one)
        assert (await bench.row(process_id))["claimed_by"] is None
        assert [result.next is not None for result in sent.results] == [True]
        assert ran.pop() == "Step 1"
        assert ran == []


async def test_a_plan_that_was_registered_meanwhile_ends_it(bench: Bench) -> None:
    """The coordinator moves the process to it first."""
    one, sent = await consumer(bench, 100)
    gates["Step 1"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: ran == ["Step 1"], "the first step runs")
    await bench.database.pool.execute(
        "INSERT INTO workflow_plans (workflow, number, fingerprint, steps, registered_by)"
        " VALUES ('many', 2, 'another', '[]', 'test')"
    )
    gates["Step 1"].set()
    await rest(one)
    assert ran == ["Step 1"]
    assert [result.next.step for result in sent.results if result.next] == ["Step 2"]


async def test_events_do_not_wait_for_a_step_that_takes_long_and_no_indexed_column_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.run_ahead.FLUSH_AFTER", 2)  # a busy machine takes long for two steps
    one, sent = await consumer(bench, 100)
    gates["Step 3"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: len(sent.results) == 1, "what has gathered is sent while the third step runs")
    (flushed,) = sent.results
    assert (steps_in(flushed), flushed.next) == (["Step 1", "Step 2"], None)
    row = await bench.row(process_id)
    assert (row["announce_at"], row["announced"]) == (None, 3), "others wait for this consumer"
    confirmed = await bench.announcer.announce(flushed)
    await bench.announcer.record(flushed, confirmed, is_claimed_next=False)
    await bench.announcer.write_marks()
    gates["Step 3"].set()
    await rest(one)
    assert sent.results[-1].announced == confirmed
    assert steps_in(sent.results[-1]) == [f"Step {number}" for number in range(3, MANY + 1)]
    assert (await bench.row(process_id))["status"] == "completed"


async def test_the_events_of_a_consumer_that_died_are_told_with_the_release_of_its_claim(bench: Bench) -> None:
    """Nothing of them was sent; the step that it ran is the one that is suspected."""
    one, sent = await consumer(bench, 100)
    gates["Step 3"] = asyncio.Event()
    process_id = await bench.start("many")
    sent.publish = None  # type: ignore[method-assign, assignment]  # nothing gets out any more
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 3" in ran, "the third step runs")
    async with bench.database.transaction() as session:
        await session.execute(text("DELETE FROM consumers"))
        await session.execute(text("UPDATE processes SET claimed_at = now() - interval '1 minute'"))
        (lost,) = await lock_lost_claims(session, reads_for=60, presumed_dead_after=10, limit=9)
        message = await release_lost_claim(session, lost, LIMITS)
    assert steps_in(message) == ["Step 1", "Step 2"]
    assert message.next is not None
    assert (message.next.step, message.next.lost) == ("Step 3", 1)
    gates["Step 3"].set()
    await rest(one)
    assert ran == ["Step 1", "Step 2", "Step 3"]


async def test_others_do_not_wait_for_the_end_of_a_long_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slot: the second process begins after a short stretch of the first one."""
    monkeypatch.setattr("consumers.run_ahead.SHORT", Budget(SHORT.steps, 600))
    one, sent = await consumer(bench, 100, slots=1)
    first, second = await bench.start("many"), await bench.start("elsewhere")
    gates["Step 1"] = asyncio.Event()
    await take(one, await bench.command(first))
    waiting = asyncio.create_task(take(one, await bench.command(second)))
    await asyncio.sleep(0)
    gates.pop("Step 1").set()
    await waiting
    await rest(one)
    assert ran.count("Step 1") == 2
    assert len(ran) == SHORT.steps + 2
    assert [command.step for command in sent.commands] == [f"Step {SHORT.steps + 2}", "Step 2"]


async def test_each_step_is_the_one_that_is_compared_with_the_claims(bench: Bench) -> None:
    """A heartbeat that knows the claim leaves the third step alone; one that knows none cancels it, once it is old."""
    one, _ = await consumer(bench, 100)
    gates["Step 3"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 3" in ran, "the third step runs")
    async with bench.database.pool.acquire() as connection:
        claims = await list_claim_times(connection, bench.heartbeat.consumer_id)
    now = claims[process_id]
    await one.compare(now, claims)
    await one.compare(now, {})
    assert one.running == 1
    await one.compare(now + 2 * SETTLING_TIME, {})
    await rest(one)
    assert ran == ["Step 1", "Step 2", "Step 3"]


async def test_a_consumer_that_ends_cancels_the_step_that_runs_and_releases_its_claim_once(bench: Bench) -> None:
    """The steps of a stretch have one task: those before have their outcomes, and none begins after."""
    one, _ = await consumer(bench, 100, slots=1)
    gates["Step 3"] = asyncio.Event()
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await until(lambda: "Step 3" in ran, "the third step runs")
    await one.drain(0)
    row = await bench.row(process_id)
    assert (one.running, row["step"], row["claimed_by"]) == (0, "Step 3", None)
    assert ran == ["Step 1", "Step 2", "Step 3"]
    lines = [
        note for (note,) in await bench.database.pool.fetch("SELECT note FROM process_steps WHERE note IS NOT NULL")
    ]
    assert len(lines) == 1, lines


async def test_numbers_log_lines_and_context_are_those_of_each_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step runs at a time and is counted once, under its own name; nothing that a step has set reaches the next."""
    one, _ = await consumer(bench, 100)
    one_running: list[int] = []
    bound: list[Any] = []
    found: list[str] = []

    async def run(*args: Any) -> Any:
        one_running.append(one.running)
        found.append(left_behind.get())
        left_behind.set("by a step")
        claim = await run_attempt(*args)
        bound.append(structlog.contextvars.get_contextvars()["step"])
        return claim

    monkeypatch.setattr("consumers.runner.run_attempt", run)
    process_id = await bench.start("many")
    await take(one, await bench.command(process_id))
    await rest(one)
    names = [f"Step {number}" for number in range(1, MANY + 1)]
    assert (one_running, bound, found) == ([1] * MANY, names, ["nothing"] * MANY)
    samples = [
        (sample.labels["step"], sample.labels["status"], sample.value)
        for metric in bench.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "orchestrator_step_attempts_total"
    ]
    assert sorted(samples) == sorted((name, "success", 1.0) for name in names)


async def test_each_step_has_its_own_times_in_the_log_and_in_its_event(bench: Bench) -> None:
    process_id, sent = await play(bench, 100, "many")
    rows = await bench.database.pool.fetch(
        "SELECT started_at, finished_at, sequence FROM process_steps"
        " WHERE process_id = $1 AND consumer IS NOT NULL ORDER BY sequence",
        process_id,
    )
    assert len(rows) == MANY
    for before, row in itertools.pairwise(rows):
        assert before["started_at"] <= before["finished_at"] == row["started_at"], (
            "claimed with the end of the one before"
        )
    (message,) = sent.results[-1:]
    told = {entry.sequence: entry.at or message.at for entry in message.entries}
    assert {row["sequence"]: row["finished_at"] for row in rows}.items() <= told.items()


async def test_the_commit_of_a_step_waits_for_the_disk_whether_or_not_it_claims_the_next(bench: Bench) -> None:
    """A claim of its own does not wait, and its setting must not reach the writes of a step on the same connection."""
    for budget in (0, 100):
        process_id, _ = await play(bench, budget, "writes")
        state = json.loads((await bench.row(process_id))["state"])
        assert state == {"first": "on", "second": "on", "third": "on"}


async def test_a_rewound_process_has_the_same_log_and_state_whatever_the_budget(bench: Bench) -> None:
    found = []
    for budget in (0, 1, 2, 3, 7, 100):
        ran.clear()
        mended.clear()
        process_id, _ = await play(bench, budget, "breaks")
        assert (await bench.row(process_id))["status"] == "failed"
        mended.add(process_id)
        async with bench.database.transaction() as session:
            await control.rewind(session, process_id, "me", "Step 2", "again", LIMITS)
        await play_on(bench, budget, process_id)
        row = await bench.row(process_id)
        found.append((row["status"], row["attempt"], row["state"], await log(bench, process_id), list(ran)))
    assert found[0][0] == "completed"
    assert all(one == found[0] for one in found)
