"""Whose an idempotency key is, and who stands in the audit trail, when the broker or the API knows who has sent a request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest

from orchestrator.broker.dead_letters import REPLAY_OF
from orchestrator.broker.topology import Queues
from orchestrator.db.session import Database
from orchestrator.services.start import StartRequest, start
from orchestrator.workflow import StepList, begin, done, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.letter_bench import fail, kept, publish, publishing, reading
from tests.integration.test_broker import letters


@step("Work")
async def work() -> None:
    return None


@workflow("Works")
def works() -> StepList:
    return begin >> work >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, works) as made:
        async with await aio_pika.connect(amqp_url) as connection:
            await (await connection.channel()).declare_queue("mine", durable=True)
        yield made


async def ask(bench: Bench, sender: str | None, key: str, **body: Any) -> dict[str, Any]:
    command = delivery("workflow.start", json.dumps({"workflow": "works", "idempotency_key": key, **body}).encode())
    properties = {} if sender is None else {"user_id": sender}
    await bench.handlers.take_command(replace(command, reply_to="mine", properties=properties))
    (answer,) = await letters(bench.address.url, "mine")
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def test_two_services_that_use_the_same_key_have_a_process_each_and_each_its_own_again(bench: Bench) -> None:
    """The second got the first one's process, or a conflict that named it."""
    crm, billing = await ask(bench, "svc-crm", "order-1"), await ask(bench, "svc-billing", "order-1")
    unknown = await ask(bench, None, "order-1")
    assert len({one["process_id"] for one in (crm, billing, unknown)}) == 3
    for sender, first in (("svc-crm", crm), ("svc-billing", billing), (None, unknown)):
        assert await ask(bench, sender, "order-1") == {"process_id": first["process_id"], "created": False}
    conflict = await ask(bench, "svc-crm", "order-1", inputs=[{}])
    assert conflict["error"] == "ConflictError"
    assert "'order-1' was already used" in conflict["detail"]
    assert crm["process_id"] in conflict["detail"]


async def test_a_start_from_before_is_recognised_by_its_sender_and_nobody_else(bench: Bench) -> None:
    """Older versions have stored the key without its sender."""
    before = await ask(bench, None, "order-1", user="ana")
    assert await ask(bench, "svc-crm", "order-1", user="ana") == {**before, "created": False}
    assert (await ask(bench, "svc-crm", "order-1", user="bob"))["created"] is True


async def test_a_service_that_names_no_user_is_the_author_and_one_that_does_is_named_beside_it(bench: Bench) -> None:
    async def read(answer: dict[str, Any]) -> tuple[str, str | None]:
        row = await bench.database.pool.fetchrow(
            "SELECT author, note FROM process_steps WHERE process_id = $1 AND sequence = 1", UUID(answer["process_id"])
        )
        assert row is not None
        return row["author"], row["note"]

    assert await read(await ask(bench, "svc-crm", "a")) == ("svc-crm", None)
    assert await read(await ask(bench, "svc-crm", "b", user="ana")) == ("ana", "sent by svc-crm")
    assert await read(await ask(bench, None, "c")) == ("amqp", None)


async def test_a_replay_has_the_sender_of_its_letter(bench: Bench, amqp_url: str) -> None:
    """The property is lost with it: the broker takes a user_id from its owner only. The start may have been done after all."""
    body = json.dumps({"workflow": "works", "idempotency_key": "order-1"}).encode()
    async with (
        publishing(amqp_url) as publisher,
        reading(amqp_url, bench.database, publisher, {Queues.COMMANDS.value: fail}),
    ):
        user = amqp_url.partition("://")[2].partition(":")[0]
        await publish(amqp_url, "orchestrator.commands", "workflow.start", body, user_id=user)
        (stored,) = await kept(bench.database)
    done_after_all = await ask(bench, user, "order-1")
    for letter_id, created in ((stored.summary.letter_id, False), (uuid4(), True)):
        headers = {"headers": {REPLAY_OF: str(letter_id)}}
        await bench.handlers.take_command(
            replace(delivery("workflow.start", body), reply_to="mine", properties=headers)
        )
        (answer,) = await letters(amqp_url, "mine")
        found = json.loads(answer.body)
        assert (found["process_id"] == done_after_all["process_id"], found["created"]) == (not created, created)


async def test_side_by_side_the_same_key_of_a_sender_starts_one_process(database: Database, bench: Bench) -> None:
    request = StartRequest("works", (), "ana", "order-1", "svc-crm")
    async with database.transaction() as first:
        made = await start(first, request, LIMITS)
    async with database.transaction() as second:
        assert (await start(second, replace(request), LIMITS)).process_id == made.process_id
