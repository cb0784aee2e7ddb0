"""Retries and aborts of many processes: each for itself, none twice, none that has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator.db.processes.filter import ProcessFilter
from orchestrator.db.session import Database
from orchestrator.errors import EnginePausedError, InvalidInputError
from orchestrator.messages import Advanced
from orchestrator.operations.bulk import Act, BulkAction, BulkOutcome, act_on_all, select_processes
from orchestrator.services import control
from orchestrator.services.pause import set_paused
from orchestrator.workflow import StepList, begin, conditional, done, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of


@step("Work")
async def work() -> None: ...


def raises() -> bool:
    raise LookupError("asked too early")


async def only_ana(user: str, action: str) -> bool:
    return user == "ana" or action == "start"


@workflow("Fails at its condition")
def fails() -> StepList:
    return begin >> conditional(raises)(work) >> done


@workflow("Fails, and only ana may retry it", retry_auth_callback=only_ana)
def guarded() -> StepList:
    return begin >> conditional(raises)(work) >> done


@workflow("Runs")
def runs() -> StepList:
    return begin >> work >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, fails, guarded, runs) as made:
        yield made


async def change(bench: Bench, act: Act) -> Advanced:
    async with bench.database.transaction() as session:
        return await act(session)


async def run(
    bench: Bench,
    action: BulkAction,
    wanted: ProcessFilter,
    *,
    user: str = "bob",
    limit: int = 100,
    reason: str | None = None,
) -> BulkOutcome:
    selection = await select_processes(bench.database, action, wanted, limit)
    return await act_on_all(selection, lambda _, act: change(bench, act), user, LIMITS, reason)


async def authors(bench: Bench, name: str) -> Counter[tuple[UUID, str]]:
    rows = await bench.database.pool.fetch("SELECT process_id, author FROM process_steps WHERE name = $1", name)
    return Counter((row["process_id"], row["author"]) for row in rows)


FAILED = ProcessFilter(statuses=("failed",))


async def test_each_process_is_retried_and_a_refusal_does_not_stop_the_others(bench: Bench) -> None:
    mine = [await bench.start("fails") for _ in range(5)]
    theirs = [await bench.start("guarded") for _ in range(2)]

    outcome = await run(bench, BulkAction.RETRY, FAILED)

    assert (outcome.matched, outcome.done, outcome.left) == (7, 5, 0)
    assert {one.process_id for one in outcome.refusals} == set(theirs)
    assert {(one.key, one.workflow) for one in outcome.refusals} == {("forbidden", "guarded")}
    assert "'bob' may not retry" in outcome.refusals[0].detail
    assert await authors(bench, "retried") == Counter((process_id, "bob") for process_id in mine)


async def test_a_process_that_has_changed_meanwhile_is_left_alone(bench: Bench) -> None:
    process_ids = [await bench.start("fails") for _ in range(3)]
    for action in BulkAction:
        selection = await select_processes(bench.database, action, FAILED)
        await change(bench, lambda session: control.retry(session, process_ids[0], "ann", LIMITS))
        outcome = await act_on_all(selection, lambda _, act: change(bench, act), "bob", LIMITS)
        assert [(one.process_id, one.key) for one in outcome.refusals] == [(process_ids[0], "conflict")]
    assert (await bench.row(process_ids[0]))["status"] == "failed"
    assert (await bench.row(process_ids[1]))["status"] == "aborted"


async def test_of_twenty_bulk_retries_at_once_each_process_is_retried_by_one(bench: Bench) -> None:
    process_ids = [await bench.start("fails") for _ in range(4)]
    selections = [await select_processes(bench.database, BulkAction.RETRY, FAILED) for _ in range(20)]
    outcomes = await asyncio.gather(
        *(
            act_on_all(one, lambda _, act: change(bench, act), f"user {number}", LIMITS)
            for number, one in enumerate(selections)
        )
    )
    assert sum(one.done for one in outcomes) == 4
    assert sum(len(one.refusals) for one in outcomes) == 76
    assert Counter(process_id for process_id, _ in await authors(bench, "retried")) == Counter(process_ids)


async def test_an_abort_gives_its_reason_and_reaches_running_processes(bench: Bench) -> None:
    process_id = await bench.start("runs")
    await bench.start("fails")
    outcome = await run(bench, BulkAction.ABORT, ProcessFilter(workflow="runs"), reason="ordered again")
    assert (outcome.matched, outcome.done) == (1, 1)
    found = await bench.database.pool.fetchrow("SELECT author, note FROM process_steps WHERE name = 'aborted'")
    assert tuple(found or ()) == ("bob", "ordered again")
    assert (await bench.row(process_id))["status"] == "aborted"


async def test_the_conditions_must_all_hold_and_the_oldest_come_first(bench: Bench) -> None:
    old, new = await bench.start("fails"), await bench.start("fails")
    await bench.start("guarded")
    pool = bench.database.pool
    await pool.execute(
        "UPDATE processes SET updated_at = now() - interval '3 hours', is_task = true WHERE process_id = $1", old
    )
    hour = datetime.now(UTC) - timedelta(hours=1)

    async def find(limit: int = 100, **wanted: Any) -> list[UUID]:
        selection = await select_processes(bench.database, BulkAction.RETRY, ProcessFilter(**wanted), limit)
        return [one.process_id for one in selection.found]

    assert await find(workflow="fails") == [old, new]
    assert await find(workflow="fails", limit=1) == [old]
    assert await find(workflow="fails", since=hour) == [new]
    assert await find(until=hour) == [old]
    assert await find(is_task=True) == [old]
    assert await find(workflow="fails", step="Work", is_task=False) == [new]
    assert await find(step="Another") == []


async def test_more_than_one_call_takes_on_are_left(bench: Bench) -> None:
    for _ in range(3):
        await bench.start("fails")
    outcome = await run(bench, BulkAction.RETRY, FAILED, limit=2)
    assert (outcome.matched, outcome.done, outcome.left) == (3, 2, 1)


async def test_what_would_be_a_mistake_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInputError, match="say which processes to abort"):
        await run(bench, BulkAction.ABORT, ProcessFilter())
    with pytest.raises(
        InvalidInputError, match=r"a process that is suspended cannot be .*: use api_unavailable, failed, "
    ):
        await run(bench, BulkAction.RETRY, ProcessFilter(statuses=("failed", "suspended")))
    async with bench.database.transaction() as session:
        await set_paused(session, True, "ana")
    with pytest.raises(EnginePausedError):
        await run(bench, BulkAction.RETRY, FAILED)
    await run(bench, BulkAction.ABORT, FAILED)
