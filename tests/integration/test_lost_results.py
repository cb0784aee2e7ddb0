"""Every entry of a process's log is told, in order, also when the message about the entries before was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aio_pika
import pytest

from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator.backlog import Backlog
from orchestrator.db.session import Database
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.services.reconcile import look
from orchestrator.workflow import StepList, callback_step, done, init, inputstep, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery, resume

TOKENS: list[str] = []


class Approval(FormPage):
    approved: bool


@inputstep("Approve as NOC")
def approve_as_noc() -> FormGenerator:
    page = yield Approval
    return {"noc": page.approved}  # type: ignore[attr-defined]  # the page just made


@inputstep("Approve as manager")
def approve_as_manager() -> FormGenerator:
    page = yield Approval
    return {"manager": page.approved}  # type: ignore[attr-defined]  # the page just made


@step("Work")
async def work() -> None:
    return None


@step("Work after it")
async def work_after() -> None:
    return None


@step("Order")
async def order(callback_token: str) -> None:
    TOKENS.append(callback_token)


@workflow("Two approvals in a row")
def approvals() -> StepList:
    return init >> work >> approve_as_noc >> approve_as_manager >> work_after >> done


@workflow("Calls out")
def calls() -> StepList:
    return init >> callback_step("Wait", order, work) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, approvals, calls) as made:
        yield made


async def told(queue: aio_pika.abc.AbstractQueue) -> list[int]:
    found = []
    while (message := await queue.get(fail=False, no_ack=True)) is not None:
        found.append(json.loads(message.body)["sequence"])
    return found


@pytest.mark.parametrize("name", ["approvals", "calls"])
async def test_entries_whose_message_was_lost_are_published_by_whoever_moves_the_process_next(
    bench: Bench, name: str
) -> None:
    """The consumer dies between its commit and its result, and somebody answers before a coordinator has looked."""
    async with await aio_pika.connect(bench.address.url) as connection:
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        await queue.bind("orchestrator.events", "#")
        process_id = await bench.start(name)
        async with bench.database.transaction() as session:
            started = await look(session, process_id, LIMITS)
        assert started is not None
        await bench.dispatcher.publish(started)

        # Never opened: all that it publishes is lost.
        silent = Publisher(bench.address, Topology.of("classic"), 0.1)
        dying = await bench.runner(publisher=silent)
        await bench.run_step(process_id, dying, "suspended" if name == "approvals" else "awaiting_callback")
        if name == "approvals":
            for _ in range(2):
                await bench.handlers.take_command(resume(process_id, {"approved": True}))
        else:
            await bench.handlers.take_callback(delivery("callback.completed", b"{}", token=TOKENS[-1]))

        # The claim of the step that follows writes the mark up to which all has been told.
        await bench.run_step(process_id, await bench.runner(), "completed")
        await bench.database.pool.execute("UPDATE processes SET announce_at = now() WHERE process_id = $1", process_id)
        await Backlog(bench.database, bench.announcer, interval=1).run_once()
        sequences = await told(queue)

    newest = (await bench.row(process_id))["sequence"]
    first_times = list(dict.fromkeys(sequences))
    assert first_times == list(range(1, newest + 1))


async def test_marks_that_cannot_be_written_are_kept_and_the_dispatcher_lives_on(bench: Bench) -> None:
    """Whatever the database has against them: it is not only away or there."""
    process_id = await bench.start("calls")
    async with bench.database.transaction() as session:
        started = await look(session, process_id, LIMITS)
    assert started is not None
    resting = started.model_copy(update={"next": None})
    stopping = asyncio.Event()
    running = asyncio.create_task(bench.announcer.run(stopping))
    await bench.database.pool.execute("ALTER TABLE processes RENAME COLUMN announced TO gone")
    await bench.dispatcher.publish(resting)
    await bench.announcer.try_write_marks()
    await bench.database.pool.execute("ALTER TABLE processes RENAME COLUMN gone TO announced")
    stopping.set()
    await running
    await bench.announcer.try_write_marks()
    assert (await bench.row(process_id))["announced"] == started.sequence
