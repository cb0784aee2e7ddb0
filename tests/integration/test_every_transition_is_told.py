"""Each transition of a process is an event for streams, which read the log, and a message for other services: the same ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest

from orchestrator.broker.topology import Exchanges, Queues
from orchestrator.db.notices import Change, Notice, listen
from orchestrator.db.processes.claims import lock_lost_claims
from orchestrator.db.session import Database
from orchestrator.engine.position import Position
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.messages import Advanced, MessageType, decode
from orchestrator.services import control
from orchestrator.services.feed import read_events, read_now
from orchestrator.services.reconcile import release_lost_claim
from orchestrator.workflow import StepList, callback_step, done, init, inputstep, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery, resume
from tests.integration.test_broker import letters
from tests.integration.waiting import until


class Answer(FormPage):
    answer: int


@inputstep("Ask", assignee="NOC")
def ask() -> FormGenerator:
    page = yield Answer
    return page.model_dump()


@step("Try")
def attempt(answer: int) -> None:
    if not Path("/nowhere").exists() and answer == 1:
        raise ValueError("not with 1")


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


@workflow("Goes through every transition")
def odyssey() -> StepList:
    return init >> ask >> attempt >> callback_step("Delivery", send, check, timeout=3600) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, odyssey) as made:
        async with await aio_pika.connect(amqp_url) as connection:
            mine = await (await connection.channel()).declare_queue("mine", durable=True)
            await mine.bind(Exchanges.EVENTS.value, "#")
        yield made


class Follower:
    """Reads what is new in the log and among the messages."""

    def __init__(self, bench: Bench, url: str, position: Position) -> None:
        self.bench, self.url, self.position = bench, url, position

    async def take(self, *messages: Advanced | None) -> list[str]:
        """Publish what a coordinator would, and return the statuses of the new events, which are the same everywhere."""
        for message in messages:
            if message is not None:
                await self.bench.dispatcher.publish(message)
        for result in await letters(self.url, Queues.RESULTS):
            if result.type == MessageType.STEP_RESULT:
                await self.bench.dispatcher.publish(decode(Advanced, result.body))
        page = await read_events(self.bench.database.pool, self.position)
        self.position = page.position
        sent: dict[int, dict[str, Any]] = {}
        for one in await letters(self.url, "mine"):
            body = json.loads(one.body)
            sent[body["sequence"]] = body
        told = {one.event.sequence: one.event.model_dump(mode="json") for one in page.events}
        assert told
        # Messages of earlier entries may be repeated.
        assert {number: sent.get(number) for number in told} == told
        return [str(one["status"]) for one in told.values()]


async def test_every_transition_is_an_event_of_streams_and_of_messages(bench: Bench, amqp_url: str) -> None:
    """Start, resume, failure, retry, lost consumer, callback, timeout, rewind, abort."""
    pool = bench.database.pool
    follower = Follower(bench, amqp_url, await read_now(pool))
    runner = await bench.runner()

    await bench.handlers.take_command(delivery("workflow.start", b'{"workflow": "odyssey"}'))
    process_id: UUID = await pool.fetchval("SELECT process_id FROM processes")
    assert "suspended" in await follower.take()

    await bench.handlers.take_command(resume(process_id, {"answer": 1}))
    assert "running" in await follower.take()
    await bench.run_step(process_id, runner, "failed")
    assert "failed" in await follower.take()

    await bench.handlers.take_command(resume(process_id))
    assert await follower.take()

    await bench.run_step(process_id, runner, "failed")
    await follower.take()
    async with bench.database.transaction() as session:
        moved = await control.rewind(session, process_id, "ana", "Ask", "another answer", LIMITS)
    assert await follower.take(moved)

    await bench.handlers.take_command(resume(process_id, {"answer": 2}))
    await bench.run_step(process_id, runner, "running")
    await bench.run_step(process_id, runner, "awaiting_callback")
    assert "awaiting_callback" in await follower.take()
    await pool.execute("UPDATE callbacks SET deadline = now() - interval '1 s' WHERE status = 'parked'")
    await pool.execute("UPDATE processes SET due_at = now(), wake_at = now()")
    await bench.reconciler().run_once()
    assert "failed" in await follower.take()

    await bench.handlers.take_command(resume(process_id))
    assert "running" in await follower.take()
    await pool.execute(
        "UPDATE processes SET attempt = attempt + 1, claimed_by = $1, claimed_at = now() - interval '1 hour'", uuid4()
    )
    async with bench.database.transaction() as session:
        (claim,) = await lock_lost_claims(session, reads_for=3600, presumed_dead_after=10, limit=10)
        lost = await release_lost_claim(session, claim, LIMITS)
    assert await follower.take(lost)

    async with bench.database.transaction() as session:
        ended = await control.abort(session, process_id, "ana", LIMITS, "enough")
    assert "aborted" in await follower.take(ended)


async def test_an_answer_and_a_progress_report_are_told(bench: Bench, amqp_url: str) -> None:
    """Progress has no entry in the log: it is a notice, and an answer is an event."""
    pool = bench.database.pool
    await bench.handlers.take_command(delivery("workflow.start", b'{"workflow": "odyssey"}'))
    process_id: UUID = await pool.fetchval("SELECT process_id FROM processes")
    await bench.handlers.take_command(resume(process_id, {"answer": 2}))
    runner = await bench.runner()
    await bench.run_step(process_id, runner, "running")
    token = str(
        await pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1 AND status = 'open'", process_id)
    )
    await bench.run_step(process_id, runner, "awaiting_callback")
    follower = Follower(bench, amqp_url, Position.parse(str(await read_now(pool))))
    await letters(amqp_url, Queues.RESULTS)
    await letters(amqp_url, "mine")
    heard: list[Notice] = []
    ready, stopping = asyncio.Event(), asyncio.Event()
    listening = asyncio.create_task(listen(bench.database, heard.append, ready.set, stopping))
    await asyncio.wait_for(ready.wait(), 30)
    progress = replace(delivery("callback.progress", b'{"percent": 40}'), correlation_id=token)
    await bench.handlers.take_callback(progress)
    await until(lambda: any(one.change is Change.PROCESSES for one in heard), "the progress is told")
    stopping.set()
    await listening
    await bench.handlers.take_callback(replace(delivery("callback.completed", b"{}"), correlation_id=token))
    assert await pool.fetchval("SELECT status FROM processes") == "running"
    page = await read_events(pool, follower.position)
    assert [one.event.status for one in page.events]
