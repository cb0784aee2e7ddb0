"""Why a process does not go on, read from real servers: each way in which it can stand still."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from orchestrator.db.session import Database
from orchestrator.errors import NotFoundError
from orchestrator.operations.explain import explain_process
from orchestrator.operations.explanation import Explanation, Kind
from orchestrator.services.callbacks import report_progress
from orchestrator.services.control import abort
from orchestrator.services.pause import set_paused
from orchestrator.workflow import StepList, Workflow, callback_step, inputstep, retrystep, step
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until

TOKENS: list[str] = []
GATE = asyncio.Event()


@step("Send")
def send(callback_token: str) -> None:
    TOKENS.append(callback_token)


@step("Check")
def check() -> None:
    """Do nothing."""


@inputstep("Approve", assignee="NOC")
def approve() -> None:
    """Ask nothing."""


@retrystep("Patient")
def patient() -> None:
    raise TimeoutError("no answer")


@step("Break")
def fail() -> None:
    raise ValueError("the port is taken")


@step("Hold")
async def hold() -> None:
    await GATE.wait()


calls = Workflow("calls", "for tests", StepList((callback_step("Order", send, check, timeout=timedelta(hours=1)),)))
asks = Workflow("asks", "for tests", StepList((approve,)))
waits = Workflow("waits", "for tests", StepList((patient,)))
fails = Workflow("fails", "for tests", StepList((fail,)))
holds = Workflow("holds", "for tests", StepList((hold,)))
checks = Workflow("checks", "for tests", StepList((check,)))


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    workflows = (calls, asks, waits, fails, holds, checks)
    async with bench_of(database, amqp_url, monkeypatch, __name__, *workflows) as made:
        yield made


async def explained(bench: Bench, process_id: UUID) -> Explanation:
    async with bench.database.pool.acquire() as connection:
        return await explain_process(connection, process_id)


async def change(bench: Bench, statement: str, *values: object) -> None:
    await bench.database.pool.execute(statement, *values)


async def test_an_awaited_callback_says_since_when_until_when_and_how_often_it_reported(bench: Bench) -> None:
    process_id = await bench.run("calls")
    await until(lambda: TOKENS, "the action has handed out its token")
    for percent in (10, 60):
        async with bench.database.transaction() as session:
            await report_progress(session, TOKENS[-1], b'{"percent": %d}' % percent)

    found = await explained(bench, process_id)

    assert found.kind is Kind.CALLBACK
    assert "since" in found.summary
    assert "expires" in found.summary
    assert found.summary.endswith("2 progress messages")
    assert found.details[0].endswith(': {"percent":60}')
    assert found.data["progress_reports"] == 2
    assert found.data["expires_at"] - found.data["since"] == pytest.approx(timedelta(hours=1), abs=timedelta(minutes=1))
    assert TOKENS[-1] not in str(found.document())


async def test_a_waiting_step_says_which_try_comes_when_and_why(bench: Bench) -> None:
    process_id = await bench.run("waits")
    found = await explained(bench, process_id)
    assert found.kind is Kind.RETRY
    assert found.summary.startswith("try 2 of 'Patient' at ")
    assert found.summary.endswith("the last error: TimeoutError: no answer")

    await change(bench, "UPDATE processes SET due_at = now() - interval '1 hour', wake_at = due_at")
    late = await explained(bench, process_id)
    assert late.kind is Kind.NO_COORDINATOR
    assert "due for 1 h 00 min" in late.summary

    async with bench.database.transaction() as session:
        await set_paused(session, True, "ana", "new line card")
    paused = await explained(bench, process_id)
    assert paused.kind is Kind.PAUSED
    assert re.fullmatch(r"the engine is paused by ana since .* UTC: new line card", paused.summary)
    assert paused.details[0] == "try 2 of 'Patient' comes once it is unpaused"


async def test_a_failed_process_says_where_why_and_what_may_be_done(bench: Bench) -> None:
    found = await explained(bench, await bench.run("fails"))
    assert found.kind is Kind.FAILED
    assert found.summary.startswith("failed at 'Break' since ")
    assert found.summary.endswith(": ValueError: the port is taken")
    assert found.details[0].startswith("retry it")


async def test_a_suspended_process_says_whose_input_it_waits_for_and_a_final_one_since_when(bench: Bench) -> None:
    process_id = await bench.start("asks")
    found = await explained(bench, process_id)
    assert found.kind is Kind.INPUT
    assert found.summary.startswith("waits for input of 'Approve' from NOC since ")

    async with bench.database.transaction() as session:
        await abort(session, process_id, "bo", LIMITS, "not needed")
    final = await explained(bench, process_id)
    assert final.kind is Kind.FINAL
    assert final.summary.startswith("aborted since ")
    assert final.summary.endswith(" by bo")
    assert final.details == ("not needed",)


async def test_a_queued_step_says_how_many_are_ahead_and_who_reads_its_queue(bench: Bench) -> None:
    first, second = await bench.start("checks"), await bench.start("holds")
    nobody = await explained(bench, second)
    assert nobody.kind is Kind.NO_CONSUMER
    assert nobody.summary.startswith("no consumer is running")

    await bench.runner()
    queued = await explained(bench, second)
    assert queued.kind is Kind.QUEUED
    assert queued.summary == "waits in the queue 'default' for its turn; 1 ahead, 1 consumer reads it"
    assert (await explained(bench, first)).data["ahead"] == 0

    await change(bench, "UPDATE consumers SET knows = '{}'")
    lacks = await explained(bench, second)
    assert lacks.kind is Kind.NO_CONSUMER
    assert f"{bench.heartbeat.name} reads this queue, but does not know 'holds'" in lacks.details

    await change(bench, """UPDATE consumers SET knows = '{"holds": "ffffffffffffffff"}'""")
    another = await explained(bench, second)
    assert another.kind is Kind.NO_CONSUMER
    assert any("has another plan of 'holds' than the process" in line for line in another.details)

    await change(bench, "UPDATE consumers SET queues = '{other}'")
    assert (await explained(bench, second)).summary.startswith("no consumer reads the queue 'default'")


async def test_a_step_of_a_plan_that_no_living_program_has_waits_for_that(bench: Bench) -> None:
    process_id = await bench.start("checks")
    await bench.runner()
    await change(bench, "UPDATE processes SET due_at = now() - interval '45 seconds', plan = 'ffffffffffffffff'")
    late = await explained(bench, process_id)
    assert late.kind is Kind.NO_COORDINATOR
    assert "the plan ffffffffffffffff of 'checks'" in late.details[1]

    await change(bench, """UPDATE consumers SET knows = '{"checks": "eeeeeeeeeeeeeeee"}'""")
    nobody = await explained(bench, process_id)
    assert nobody.kind is Kind.NO_CONSUMER
    assert any("has another plan of 'checks' than the process" in line for line in nobody.details)


async def test_a_claimed_step_says_on_which_consumer_it_runs_and_whether_that_responds(bench: Bench) -> None:
    GATE.clear()
    runner = await bench.runner()
    process_id = await bench.start("holds")
    await runner.take(await bench.command(process_id))

    async def is_claimed() -> bool:
        return (await bench.row(process_id))["claimed_by"] is not None

    await until(is_claimed, "the step is claimed")
    running = await explained(bench, process_id)
    assert running.kind is Kind.RUNNING
    assert running.summary.startswith(f"'Hold' runs on {bench.heartbeat.name} since ")

    await change(
        bench, "UPDATE consumers SET responsive_at = now() - interval '9 s', blocked_by = '{\"by\": \"Hold\"}'"
    )
    blocked = await explained(bench, process_id)
    assert blocked.kind is Kind.CONSUMER_BLOCKED
    assert "blocked for 9 s" in blocked.summary
    assert "blocked by Hold" in blocked.details

    await change(bench, "UPDATE consumers SET seen_at = now() - interval '7 s'")
    silent = await explained(bench, process_id)
    assert silent.kind is Kind.CONSUMER_SILENT
    assert silent.summary == f"its consumer {bench.heartbeat.name} has been silent for 7 s"

    await change(bench, "DELETE FROM consumers")
    gone = await explained(bench, process_id)
    assert gone.kind is Kind.CONSUMER_SILENT
    GATE.set()
    await until(lambda: runner.running == 0, "the attempt has ended")


async def test_nobody_can_explain_a_process_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="there is no process"):
        await explained(bench, uuid4())
