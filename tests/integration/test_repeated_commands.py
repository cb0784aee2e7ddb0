"""Commands about a process that are sent or delivered again: a coordinator's handlers, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from orchestrator import registry
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.handlers import Handlers
from orchestrator.db.session import Database
from orchestrator.errors import PublishError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.messages import Advanced
from orchestrator.services.pause import set_paused
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartRequest, start
from orchestrator.settings import Limits
from orchestrator.workflow import StepList, begin, conditional, done, init, inputstep, step, workflow

LIMITS = Limits(redispatch_after=5, step_timeout=60, state_soft_limit=64_000, state_hard_limit=1_000_000)
YES = {"approved": True}


class Approval(FormPage):
    approved: bool


@inputstep("Approve as NOC", assignee="NOC")
def approve_as_noc() -> FormGenerator:
    page = yield Approval
    return {"noc": page.model_dump()["approved"]}


@inputstep("Approve as manager", assignee="MANAGER")
def approve_as_manager() -> FormGenerator:
    page = yield Approval
    return {"manager": page.model_dump()["approved"]}


@step("Work")
async def work() -> None:
    return None


def breaks() -> bool:
    raise ValueError("asked too early")


@workflow("Two approvals")
def two_approvals() -> StepList:
    return init >> approve_as_noc >> approve_as_manager >> work >> done


@workflow("One approval")
def one_approval() -> StepList:
    return init >> approve_as_noc >> work >> done


@workflow("Fails, and fails again")
def fails() -> StepList:
    return begin >> conditional(breaks)(work)


class Bench:
    """A coordinator's handlers, and a service that hears their answers."""

    def __init__(
        self, database: Database, publisher: Publisher, channel: AbstractChannel, replies: AbstractQueue
    ) -> None:
        self.database, self.channel, self.replies = database, channel, replies
        self.dispatcher = Dispatcher(publisher, Announcer(publisher, database.pool))
        self.handlers = Handlers(database, publisher, self.dispatcher, LIMITS, ProgramPlans({}))

    async def start(self, workflow: str) -> UUID:
        async with self.database.transaction() as session:
            return (await start(session, StartRequest(workflow), LIMITS)).process_id

    async def deliver(self, kind: str, process_id: UUID, message_id: str | None = None, **body: Any) -> None:
        raw = json.dumps({"process_id": str(process_id), **body}).encode()
        await self.handlers.take_command(
            Delivery("orchestrator.commands", raw, None, kind, message_id, None, self.replies.name, redelivered=False)
        )

    async def answers(self) -> list[tuple[str | None, dict[str, Any]]]:
        found = []
        while (message := await self.replies.get(no_ack=True, fail=False)) is not None:
            found.append((message.type, json.loads(message.body)))
        return found

    async def ask(
        self, kind: str, process_id: UUID, message_id: str | None = None, **body: Any
    ) -> tuple[str | None, Any]:
        await self.deliver(kind, process_id, message_id, **body)
        (answer,) = await self.answers()
        return answer

    async def resume(self, process_id: UUID, message_id: str | None = None, **body: Any) -> tuple[str | None, Any]:
        return await self.ask("process.resume", process_id, message_id, **body)

    async def row(self, process_id: UUID) -> Any:
        return await self.database.pool.fetchrow("SELECT * FROM processes WHERE process_id = $1", process_id)

    async def log(self, process_id: UUID) -> list[str]:
        query = "SELECT name || ' ' || status AS told FROM process_steps WHERE process_id = $1 ORDER BY sequence"
        return [row["told"] for row in await self.database.pool.fetch(query, process_id)]


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(registry, "_instances", {})
    for one in (two_approvals, one_approval, fails):
        registry.LazyWorkflowInstance(__name__, one.name)
        await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", one.name)
    publisher = Publisher(BrokerAddress(amqp_url, "test", 3), Topology.of("classic"), 5)
    await publisher.open()
    try:
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            yield Bench(database, publisher, channel, await channel.declare_queue(exclusive=True))
    finally:
        await publisher.close()


@pytest.mark.parametrize("named", ["by the message", "by its body"])
async def test_a_resume_that_is_delivered_again_does_not_answer_the_next_question(bench: Bench, named: str) -> None:
    """B4: the coordinator died before it acknowledged, or the sender has heard nothing and sends it again."""
    process_id = await bench.start("two_approvals")
    key: dict[str, Any] = {"message_id": "once"} if named == "by the message" else {"idempotency_key": "once"}
    first = await bench.resume(process_id, inputs=[YES], user="noc-person", **key)
    log = await bench.log(process_id)
    again = await bench.resume(process_id, inputs=[YES], user="noc-person", **key)
    assert first == again == ("process.resumed", {"process_id": str(process_id), "status": "suspended"})
    assert await bench.log(process_id) == log
    assert (await bench.row(process_id))["step"] == "Approve as manager"
    # The manager's own approval has the same page, and a key of its own.
    manager = await bench.resume(process_id, "another", inputs=[YES], user="manager")
    assert manager == ("process.resumed", {"process_id": str(process_id), "status": "running"})
    late = await bench.resume(process_id, inputs=[YES], user="noc-person", **key)
    assert late == ("process.resumed", {"process_id": str(process_id), "status": "running"})


async def test_a_retry_that_is_delivered_again_after_it_has_failed_again_does_nothing(bench: Bench) -> None:
    """B4: the status would allow it once more."""
    process_id = await bench.start("fails")
    await bench.resume(process_id, "once")
    log = await bench.log(process_id)
    assert log.count("retried running") == 1
    again = await bench.resume(process_id, "once")
    assert again == ("process.resumed", {"process_id": str(process_id), "status": "failed"})
    assert await bench.log(process_id) == log
    await bench.resume(process_id, "a second retry")
    assert (await bench.log(process_id)).count("retried running") == 2


async def test_deliveries_of_one_command_side_by_side_are_carried_out_once(bench: Bench) -> None:
    """B4: all are answered alike; whoever comes second waits for the first one's commit."""
    process_id = await bench.start("one_approval")
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(bench.deliver("process.resume", process_id, "once", inputs=[YES]))
    answers = await bench.answers()
    assert answers == [("process.resumed", {"process_id": str(process_id), "status": "running"})] * 10
    assert (await bench.log(process_id)).count("Approve as NOC success") == 1


async def test_an_abort_that_is_delivered_again_is_answered_as_the_first(bench: Bench) -> None:
    process_id = await bench.start("one_approval")
    asked = {"reason": "cancelled", "idempotency_key": "once"}
    first = await bench.ask("process.abort", process_id, **asked)
    log = await bench.log(process_id)
    again = await bench.ask("process.abort", process_id, **asked)
    assert first == again == ("process.aborted", {"process_id": str(process_id), "status": "aborted"})
    assert await bench.log(process_id) == log


async def test_another_command_under_a_used_key_is_a_conflict(bench: Bench) -> None:
    """A different page, log entry or kind of command; about another process the key is another one."""
    process_id, other_id = await bench.start("two_approvals"), await bench.start("two_approvals")
    await bench.resume(process_id, "used", inputs=[YES])
    log = await bench.log(process_id)
    for kind, body in (
        ("process.resume", {"inputs": [{"approved": False}]}),
        ("process.resume", {"inputs": [YES], "seen": len(log)}),
        ("process.abort", {}),
    ):
        answer = await bench.ask(kind, process_id, "used", **body)
        assert (answer[0], answer[1]["error"]) == ("workflow.refused", "ConflictError"), kind
        assert "'used' was already used for another command" in answer[1]["detail"]
    assert await bench.log(process_id) == log
    assert (await bench.resume(other_id, "used", inputs=[YES]))[0] == "process.resumed"


async def test_a_command_that_was_refused_can_be_sent_again_under_its_key(bench: Bench) -> None:
    process_id = await bench.start("one_approval")
    assert (await bench.resume(process_id, "once", inputs=[{"approved": "perhaps"}]))[0] == "workflow.refused"
    assert (await bench.resume(process_id, "once", inputs=[YES]))[0] == "process.resumed"


async def test_a_command_without_a_key_counts_each_time(bench: Bench) -> None:
    process_id = await bench.start("two_approvals")
    for status in ("suspended", "running"):
        answer = await bench.resume(process_id, inputs=[YES])
        assert answer == ("process.resumed", {"process_id": str(process_id), "status": status})
    assert await bench.database.pool.fetchval("SELECT count(*) FROM process_commands") == 0


async def test_a_repeated_command_publishes_what_the_first_could_not_and_is_answered_while_paused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator died after its commit: neither the events nor the step's command were published."""
    events = await bench.channel.declare_queue(exclusive=True)
    await events.bind("orchestrator.events", "#")
    steps = await bench.channel.declare_queue(exclusive=True)
    await steps.bind("orchestrator.steps", "default")
    process_id = await bench.start("one_approval")

    async def nothing(_: Advanced) -> None:
        raise PublishError("dead by now")

    with monkeypatch.context() as patch:
        patch.setattr(bench.dispatcher, "publish", nothing)
        await bench.resume(process_id, "once", inputs=[YES])
    assert await events.get(no_ack=True, fail=False) is None
    await bench.resume(process_id, "once", inputs=[YES])
    told = [json.loads((await events.get(no_ack=True)).body)["sequence"] for _ in await bench.log(process_id)]
    assert told == list(range(1, len(told) + 1))
    assert json.loads((await steps.get(no_ack=True)).body)["step"] == "Work"

    async with bench.database.transaction() as session:
        await set_paused(session, True, "operator")
    assert (await bench.resume(process_id, "once", inputs=[YES]))[0] == "process.resumed"
    assert await steps.get(no_ack=True, fail=False) is None


async def test_a_start_that_is_delivered_again_publishes_what_the_first_coordinator_could_not(bench: Bench) -> None:
    """It died after its commit. A start that a sender repeats publishes nothing: then the first one was acknowledged."""
    events = await bench.channel.declare_queue(exclusive=True)
    await events.bind("orchestrator.events", "#")
    async with bench.database.transaction() as session:
        process_id = (await start(session, StartRequest("one_approval", key="once"), LIMITS)).process_id
    command = Delivery(
        "orchestrator.commands",
        json.dumps({"workflow": "one_approval", "idempotency_key": "once"}).encode(),
        None,
        "workflow.start",
        None,
        None,
        bench.replies.name,
        redelivered=False,
    )
    await bench.handlers.take_command(command)
    assert await events.get(no_ack=True, fail=False) is None
    await bench.handlers.take_command(replace(command, redelivered=True))
    told = [json.loads((await events.get(no_ack=True)).body)["sequence"] for _ in await bench.log(process_id)]
    assert told == list(range(1, len(told) + 1))
    answer = ("workflow.started", {"process_id": str(process_id), "created": False})
    assert await bench.answers() == [answer, answer]


async def test_of_two_people_who_have_seen_the_same_form_one_answers_it_and_nobody_the_next(bench: Bench) -> None:
    """What they have seen is in the refusal that hands out the form; who comes second is told both numbers."""
    process_id = await bench.start("two_approvals")
    form = (await bench.resume(process_id, uuid4().hex))[1]
    (reason,) = form["reasons"]
    seen = reason["sequence"]
    assert (form["error"], reason["key"], seen) == ("FormIncompleteError", "form.incomplete", 4)
    assert (await bench.resume(process_id, inputs=[YES], seen=seen, user="first"))[0] == "process.resumed"
    kind, refusal = await bench.resume(process_id, inputs=[YES], seen=seen, user="second")
    assert (kind, refusal["error"]) == ("workflow.refused", "ConflictError")
    assert refusal["reasons"] == [{"key": "conflict", "seen": seen, "sequence": 6}]
    assert (await bench.row(process_id))["step"] == "Approve as manager"
    assert (await bench.resume(process_id, inputs=[YES], seen=6, user="second"))[0] == "process.resumed"


async def test_a_process_takes_the_keys_of_its_commands_with_it_and_they_cannot_be_rewritten(bench: Bench) -> None:
    process_id = await bench.start("two_approvals")
    await bench.resume(process_id, "once", inputs=[YES])
    kept = await bench.database.pool.fetch("SELECT key, sequence FROM process_commands")
    assert [tuple(one) for one in kept] == [("once", 5)]
    with pytest.raises(Exception, match="append-only"):
        await bench.database.pool.execute("UPDATE process_commands SET key = 'twice'")
    await bench.database.pool.execute("DELETE FROM processes WHERE process_id = $1", process_id)
    assert await bench.database.pool.fetchval("SELECT count(*) FROM process_commands") == 0
