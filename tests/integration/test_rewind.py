"""Rewinds on real servers: the row, the log, callbacks, and requests side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.queries import read_log
from orchestrator.db.session import Database
from orchestrator.engine.log import state_after
from orchestrator.errors import (
    CallbackRefusedError,
    ConflictError,
    EnginePausedError,
    ForbiddenError,
    IllegalTransitionError,
    InvalidInputError,
)
from orchestrator.messages import Advanced
from orchestrator.services import control
from orchestrator.services.callbacks import COMPLETED, receive
from orchestrator.services.pause import set_paused
from orchestrator.workflow import StepList, begin, callback_step, done, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until

seen_keys: list[str] = []


@step("Reserve")
async def reserve(idempotency_key: str) -> dict[str, Any]:
    seen_keys.append(idempotency_key)
    return {"vlan": len(seen_keys)}


@step("Configure")
async def configure(vlan: int, mended: bool = False) -> dict[str, Any]:
    if not mended:
        raise RuntimeError(f"VLAN {vlan} is taken")
    return {"configured": vlan}


async def only_ana(user: str, action: str) -> bool:
    return user == "ana" or action == "start"


@workflow("Reserves and fails")
def reserves() -> StepList:
    return begin >> reserve >> configure >> done


@workflow("Only ana may act", retry_auth_callback=only_ana)
def guarded() -> StepList:
    return begin >> reserve >> configure >> done


@step("Order")
async def order() -> dict[str, Any]:
    return {"ordered": True}


@step("Check")
async def check(callback_result: dict[str, Any]) -> dict[str, Any]:
    return {"checked": True}


@workflow("Waits for others")
def waits() -> StepList:
    return begin >> reserve >> callback_step("Delivery", order, check) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    seen_keys.clear()
    async with bench_of(database, amqp_url, monkeypatch, __name__, reserves, guarded, waits) as made:
        yield made


async def rewind(bench: Bench, process_id: UUID, step_name: str, user: str = "ana", **more: Any) -> Advanced:
    async with bench.database.transaction() as session:
        return await control.rewind(session, process_id, user, step_name, "the VLAN was taken", LIMITS, **more)


async def fail(bench: Bench, workflow_name: str = "reserves") -> UUID:
    """Return a process that has failed at 'Configure'."""
    runner = await bench.runner()
    process_id = await bench.start(workflow_name)
    await bench.run_step(process_id, runner, "running")
    await bench.run_step(process_id, runner, "failed")
    return process_id


async def test_a_process_runs_again_from_the_step_and_every_attempt_stays_in_the_log(bench: Bench) -> None:
    process_id = await fail(bench)

    message = await rewind(bench, process_id, "Reserve")

    assert message.next is not None
    assert (message.status, message.next.step, message.next.attempt) == ("running", "Reserve", 2)
    row = await bench.row(process_id)
    assert (row["state"], row["attempt"], row["rewinds"]) == ("{}", 2, 1)
    runner = await bench.runner()
    await bench.run_step(process_id, runner, "running")
    await bench.run_step(process_id, runner, "failed")
    assert len(set(seen_keys)) == 2, "the step that runs anew asks for new work"
    async with bench.database.transaction() as session:
        log = await read_log(session, process_id)
    assert [(one.name, one.status, one.attempt) for one in log if one.name in {"Reserve", "Configure", "rewound"}] == [
        ("Reserve", "success", 1),
        ("Configure", "failed", 2),
        ("rewound", "running", 2),
        ("Reserve", "success", 3),
        ("Configure", "failed", 4),
    ]
    entry = next(one for one in log if one.name == "rewound")
    assert (entry.author, entry.removed, entry.kind) == ("ana", ("vlan",), "process")
    assert entry.note == "from 'Configure' to 'Reserve', with the state after entry 1: the VLAN was taken"
    assert state_after(log, log[-1].sequence) == {"vlan": 2}


async def test_a_command_of_the_first_pass_that_comes_late_runs_nothing(bench: Bench) -> None:
    runner = await bench.runner()
    process_id = await bench.start("reserves")
    await bench.run_step(process_id, runner, "running")
    late = await bench.command(process_id)
    await bench.run_step(process_id, runner, "failed")
    await rewind(bench, process_id, "Reserve")
    await bench.run_step(process_id, runner, "running")
    before = await bench.row(process_id)
    assert before["step"] == "Configure"

    await runner.take(late)
    await until(lambda: runner.running == 0, "the command is done with")

    assert await bench.row(process_id) == before
    await bench.run_step(process_id, runner, "failed")


async def test_an_answer_to_a_callback_that_was_left_is_refused(bench: Bench) -> None:
    runner = await bench.runner()
    process_id = await bench.start("waits")
    await bench.run_step(process_id, runner, "running")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks")
    await bench.run_step(process_id, runner, "awaiting_callback")

    await rewind(bench, process_id, "Reserve")

    assert await bench.database.pool.fetchval("SELECT status FROM callbacks") == "superseded"
    with pytest.raises(CallbackRefusedError) as refused:
        async with bench.database.transaction() as session:
            await receive(session, token, COMPLETED, b"{}", LIMITS)
    assert refused.value.outcome == "superseded"
    assert (await bench.row(process_id))["status"] == "running"


async def test_what_waits_for_a_callback_can_order_it_again_with_another_token(bench: Bench) -> None:
    runner = await bench.runner()
    process_id = await bench.start("waits")
    await bench.run_step(process_id, runner, "running")
    await bench.run_step(process_id, runner, "awaiting_callback")
    message = await rewind(bench, process_id, "Delivery")
    assert message.next is not None
    assert message.next.step == (await bench.row(process_id))["step"]
    statuses = await bench.database.pool.fetch("SELECT status FROM callbacks ORDER BY created_at")
    assert [row["status"] for row in statuses] == ["superseded", "open"]
    await bench.run_step(process_id, runner, "awaiting_callback")


Act = Callable[[AsyncSession, UUID, str], Awaitable[Advanced]]
ACTS: dict[str, Act] = {
    "resume": lambda session, process_id, user: control.resume(session, process_id, [], user, LIMITS),
    "retry": lambda session, process_id, user: control.retry(session, process_id, user, LIMITS),
    "skip": lambda session, process_id, user: control.skip(session, process_id, user, "why not", LIMITS),
    "rewind": lambda session, process_id, user: control.rewind(session, process_id, user, "Reserve", "why not", LIMITS),
    "abort": lambda session, process_id, user: control.abort(session, process_id, user, LIMITS),
}


@pytest.mark.parametrize("name", ACTS)
async def test_of_twenty_requests_at_once_one_is_accepted(bench: Bench, name: str) -> None:
    """A step that runs twice because two have resumed it is what others report of such interfaces."""
    process_id = await fail(bench)
    before = (await bench.row(process_id))["sequence"]

    async def act(user: str) -> str:
        try:
            async with bench.database.transaction() as session:
                await ACTS[name](session, process_id, user)
        except ConflictError:
            return "conflict"
        return user

    found = await asyncio.gather(*(act(f"user {number}") for number in range(20)))

    (accepted,) = set(found) - {"conflict"}
    assert found.count("conflict") == 19
    async with bench.database.transaction() as session:
        log = await read_log(session, process_id, after=before)
    assert {one.author for one in log} == {accepted}
    assert [one.sequence for one in log] == list(range(before + 1, before + 1 + len(log)))


async def test_a_rewind_asks_whom_a_retry_asks(bench: Bench) -> None:
    process_id = await fail(bench, "guarded")
    with pytest.raises(ForbiddenError, match="'eve' may not rewind"):
        await rewind(bench, process_id, "Reserve", "eve")
    await rewind(bench, process_id, "Reserve", "ana")


async def test_what_is_refused_changes_nothing(bench: Bench) -> None:
    process_id = await fail(bench)
    before = await bench.row(process_id)
    with pytest.raises(InvalidInputError, match="give a reason"):
        async with bench.database.transaction() as session:
            await control.rewind(session, process_id, "ana", "Reserve", " ", LIMITS)
    with pytest.raises(InvalidInputError, match="has no step 'Reserved'"):
        await rewind(bench, process_id, "Reserved")
    with pytest.raises(ConflictError, match="you have seen entry 1"):
        await rewind(bench, process_id, "Reserve", seen=1)
    async with bench.database.transaction() as session:
        await set_paused(session, True, "gina")
    with pytest.raises(EnginePausedError):
        await rewind(bench, process_id, "Reserve")
    assert await bench.row(process_id) == before


async def test_a_running_or_final_process_is_not_rewound(bench: Bench) -> None:
    process_id = await bench.start("reserves")
    with pytest.raises(IllegalTransitionError, match="running cannot be rewound: only one that is"):
        await rewind(bench, process_id, "Reserve")
    async with bench.database.transaction() as session:
        await control.abort(session, process_id, "ana", LIMITS)
    with pytest.raises(IllegalTransitionError, match="it is final"):
        await rewind(bench, process_id, "Reserve")
