"""Workflows and a consumer without a broker, for tests of steps that run ahead."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import wait_fixed

from consumers.runner import Runner
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import step_queue
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.messages import Advanced, MessageType, StepCommand, decode, encode
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import (
    Step,
    StepList,
    begin,
    callback_step,
    conditional,
    done,
    init,
    inputstep,
    retrystep,
    step,
    step_group,
    workflow,
)
from tests.integration.engine_bench import Bench, delivery
from tests.integration.waiting import until

MANY = 12
ran: list[str] = []
gates: dict[str, asyncio.Event] = {}


def numbered(number: int, queue: str | None = None) -> Step:
    @step(f"Step {number}", queue=queue)
    async def run() -> dict[str, int]:
        ran.append(f"Step {number}")
        if (gate := gates.get(f"Step {number}")) is not None:
            await gate.wait()
        return {f"n{number}": number}

    return run


def chain_of(length: int) -> StepList:
    steps: StepList = begin
    for number in range(1, length + 1):
        steps = steps >> numbered(number)
    return steps


@workflow("Steps that do nothing")
def many() -> StepList:
    return init >> chain_of(MANY) >> done


@workflow("Steps that do nothing, at most two in a row without a command", run_ahead=2)
def by_threes() -> StepList:
    return init >> chain_of(MANY) >> done


@workflow("A task", is_task=True)
def a_task() -> StepList:
    return init >> chain_of(3) >> done


@workflow("A step elsewhere")
def elsewhere() -> StepList:
    return begin >> numbered(1) >> numbered(2, "another") >> numbered(3)


@step("Change the state in place")
async def change_in_place(state: dict[str, Any]) -> dict[str, Any]:
    ran.append("in place")
    state["n1"] = "changed"
    state["never returned"] = True
    return {"list": [1, {"a": 1.0, "b": 1e22}], "z": None, "a": "ä"}


@step("Write")
async def write(session: AsyncSession, state: dict[str, Any]) -> dict[str, Any]:
    ran.append("write")
    await session.execute(text("SELECT 1"))
    return {"keys": list(state), "seen": state}


@step("Plain")
def plain(state: dict[str, Any]) -> dict[str, Any]:
    ran.append("plain")
    return {"types": {key: type(value).__name__ for key, value in state.items()}}


@step("Ask")
async def ask(callback_token: str) -> dict[str, Any]:
    ran.append("ask")
    return {"asked": len(callback_token)}


@step("Judge")
async def judge() -> None:
    ran.append("judge")


never: Any = conditional(lambda _: False)


@workflow("Every kind of step")
def mixed() -> StepList:
    group: Any = step_group("Group", begin >> numbered(3) >> never(numbered(4)) >> plain)
    steps: StepList = begin >> numbered(1) >> change_in_place >> never(numbered(2)) >> write >> group
    return init >> steps >> callback_step("Wait", ask, judge, timeout=60) >> done


def reads_setting(name: str) -> Step:
    @step(f"Write {name}")
    async def run(session: AsyncSession) -> dict[str, Any]:
        return {name: await session.scalar(text("SELECT current_setting('synchronous_commit')"))}

    return run


@workflow("Steps with a session")
def writes() -> StepList:
    return begin >> reads_setting("first") >> reads_setting("second") >> reads_setting("third") >> done


@retrystep("Fail for now", retry=RetryPolicy(wait=wait_fixed(600)))
async def fail_for_now() -> None:
    raise RuntimeError("not now")


@workflow("Waits for a retry")
def retries_later() -> StepList:
    return begin >> numbered(1) >> fail_for_now >> done


@inputstep("Ask a person")
def ask_a_person() -> FormGenerator:
    yield FormPage
    return {}


@workflow("Waits for a person")
def asks() -> StepList:
    return begin >> numbered(1) >> ask_a_person >> done


mended: set[UUID] = set()


@step("Break")
async def break_once(process_id: UUID) -> None:
    ran.append("break")
    if process_id not in mended:
        raise RuntimeError("not mended yet")


@workflow("Fails in the middle")
def breaks() -> StepList:
    return init >> chain_of(4) >> break_once >> numbered(5) >> numbered(6) >> done


class Sent:
    """Stands in for the broker: keeps what a consumer publishes."""

    def __init__(self) -> None:
        self.results: list[Advanced] = []
        self.looks = 0

    async def publish(self, message: Outgoing) -> None:
        if message.type == MessageType.LOOK:
            self.looks += 1
        else:
            self.results.append(decode(Advanced, message.body))

    @property
    def commands(self) -> list[StepCommand]:
        """What a coordinator would publish."""
        return [
            StepCommand(
                process_id=one.process_id,
                workflow=one.workflow,
                step=one.next.step,
                position=one.next.position,
                attempt=one.next.attempt,
                announced=one.entries[-1].sequence,
                lost=one.next.lost,
            )
            for one in self.results
            if one.next is not None
        ]


WORKFLOWS = (many, by_threes, a_task, elsewhere, mixed, writes, breaks, retries_later, asks)


async def consumer(bench: Bench, run_ahead: int, **options: Any) -> tuple[Runner, Sent]:
    """Return a consumer, and what it sends. Its heartbeat is recorded once, so the tests may take their time."""
    sent: Any = Sent()
    return await bench.runner(publisher=sent, run_ahead=run_ahead, presumed_dead_after=600, **options), sent


async def take(one: Runner, command: Delivery) -> None:
    """Deliver a command in its queue."""
    await one.take(replace(command, queue=step_queue("default")))


async def rest(one: Runner) -> None:
    await until(lambda: one.running == 0, "the consumer rests")


async def play(bench: Bench, run_ahead: int, workflow_name: str) -> tuple[UUID, Sent]:
    """Run a process to where it rests, and deliver each command as a coordinator does."""
    process_id = await bench.start(workflow_name)
    return process_id, await play_on(bench, run_ahead, process_id)


async def play_on(bench: Bench, run_ahead: int, process_id: UUID) -> Sent:
    """Run a process from where it is to where it rests."""
    one, sent = await consumer(bench, run_ahead)
    await take(one, await bench.command(process_id))
    await rest(one)
    delivered = 0
    while len(sent.commands) > delivered:
        command = sent.commands[delivered]
        delivered += 1
        await take(one, delivery("default", encode(command), kind=MessageType.STEP_COMMAND))
        await rest(one)
    return sent


async def log(bench: Bench, process_id: UUID) -> list[tuple[object, ...]]:
    rows = await bench.database.pool.fetch(
        "SELECT sequence, kind, name, position, attempt, status, delta::text, removed, note FROM process_steps"
        " WHERE process_id = $1 ORDER BY sequence",
        process_id,
    )
    return [tuple(row) for row in rows]


def steps_in(message: Advanced) -> list[str]:
    return [entry.name for entry in message.entries if entry.name.startswith("Step")]
