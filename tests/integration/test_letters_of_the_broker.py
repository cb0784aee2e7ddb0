"""Letters that the broker makes, and what senders and the broker may do to harm or lose one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import asyncpg
import pytest

from orchestrator.broker.dead_letters import read_letter
from orchestrator.broker.deliveries import DeclinedError, Handler
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues
from orchestrator.coordinator import dead_letters as coordinator_letters
from orchestrator.coordinator.dead_letters import LetterKeeper
from orchestrator.db.session import Database
from orchestrator.errors import CallbackRefusedError, ConflictError
from orchestrator.operations.dead_letters import discard, letter_document, replay
from orchestrator.workflow import StepList, callback_step, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.letter_bench import SENT, fail, kept, only, publish, publishing, reading
from tests.integration.test_broker import letters, ready
from tests.integration.waiting import until


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    async with publishing(amqp_url) as made:
        yield made


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


@workflow("Waits for another system")
def wait_for_it() -> StepList:
    return init >> callback_step("Delivery", send, check) >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with bench_of(database, amqp_url, monkeypatch, __name__, wait_for_it) as made:
        yield made


async def _parked(bench: Bench) -> tuple[UUID, str]:
    process_id = await bench.start("wait_for_it")
    token = await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id)
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    return process_id, str(token)


async def test_the_broker_gives_up_an_answer_and_its_token_is_nowhere_but_its_replay_completes_the_process(
    bench: Bench, amqp_url: str, publisher: Publisher
) -> None:
    process_id, token = await _parked(bench)
    await publish(
        amqp_url,
        Exchanges.CALLBACKS,
        "callback.completed",
        b'{"done": 1}',
        correlation_id=token,
        app_id="ims",
        expiration=0.001,
    )
    async with reading(amqp_url, bench.database, publisher):
        (stored,) = await kept(bench.database)
    document = letter_document(stored)
    assert document["app_id"] == "ims"
    assert "given the message up: it was not read in time" in document["reason"]
    assert (document["exchange"], document["routing_key"]) == ("orchestrator.callbacks", "callback.completed")
    assert (document["process_id"], document["workflow"], document["step"]) == (
        process_id,
        "wait_for_it",
        "Delivery",
    )
    row = await bench.database.pool.fetchval("SELECT d::text FROM dead_letters d")
    assert token not in row + str(document)
    await replay(bench.database, publisher, stored.summary.letter_id, "ana", LIMITS)
    assert (await bench.row(process_id))["status"] == "running"
    looks = [one for one in await letters(amqp_url, Queues.RESULTS) if one.type == "process.look"]
    assert [json.loads(one.body)["process_id"] for one in looks] == [str(process_id)]


async def test_an_answer_that_was_refused_is_refused_again_and_stays_a_letter(
    bench: Bench, amqp_url: str, publisher: Publisher
) -> None:
    _, token = await _parked(bench)
    handlers: dict[str, Handler] = {Queues.CALLBACKS.value: bench.handlers.take_callback}
    async with reading(amqp_url, bench.database, publisher, handlers):
        for _ in range(2):
            await publish(amqp_url, Exchanges.CALLBACKS, "callback.completed", b"{}", correlation_id=token)
        (stored,) = await kept(bench.database)
    assert "callback refused (used)" in stored.summary.reason
    assert stored.summary.workflow == "wait_for_it"
    row = await bench.database.pool.fetchval("SELECT d::text FROM dead_letters d")
    assert token not in row
    with pytest.raises(CallbackRefusedError):
        await replay(bench.database, publisher, stored.summary.letter_id, "ana", LIMITS)
    await kept(bench.database)


async def test_headers_of_a_sender_cannot_lead_a_replay_to_another_exchange(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    """Whoever may write commands must not get at the steps by an operator's hand."""
    forged = {
        "x-exchange": "orchestrator.steps",
        "x-queue": "orchestrator.steps.default",
        "x-routing-key": "default",
        "x-dead-letter-id": uuid4().hex,
        "x-death": [
            {
                "queue": "orchestrator.commands",
                "reason": "expired",
                "exchange": "orchestrator.steps",
                "routing-keys": ["default"],
                "count": 1,
                "time": SENT,
            }
        ],
    }
    await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"1", headers=forged, expiration=0.001)
    async with reading(amqp_url, database, publisher):
        (stored,) = await kept(database)
        assert (stored.summary.exchange, stored.summary.routing_key) == ("orchestrator.commands", "workflow.start")
        await discard(database, stored.summary.letter_id, "ana")
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"2", headers=forged)
        (stored,) = await kept(database)
    assert (stored.summary.exchange, stored.summary.routing_key) == ("orchestrator.commands", "workflow.start")


async def test_what_comes_from_no_queue_of_ours_can_only_be_discarded(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    await publish(amqp_url, Exchanges.DEAD, "", b"\xff\xfe", headers={"x-queue": "svc.crm.replies"})
    async with reading(amqp_url, database, publisher):
        (stored,) = await kept(database)
    assert letter_document(stored)["body_encoding"] == "base64"
    with pytest.raises(ConflictError, match="discard it"):
        await replay(database, publisher, stored.summary.letter_id, "ana", LIMITS)
    await discard(database, stored.summary.letter_id, "ana")


@pytest.mark.parametrize("headers", [{"one": "x" * 130_000}, {f"header {number}": "y" * 90 for number in range(1200)}])
async def test_headers_that_fill_a_frame_are_cut_and_the_letter_is_kept(
    amqp_url: str, database: Database, publisher: Publisher, headers: dict[str, Any]
) -> None:
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(amqp_url, Exchanges.COMMANDS, "workflow.start", b"{}", headers=headers, app_id="crm")
        (stored,) = await kept(database)
    assert stored.summary.properties["app_id"] == "crm"
    assert 0 < len(json.dumps(stored.summary.properties["headers"])) < 125_000


async def test_texts_that_the_database_cannot_hold_are_kept_as_far_as_it_can(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    headers = {"n\0ul": "a\0b"}
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(
            amqp_url, Exchanges.COMMANDS, "workflow.start", b'{"workflow": "a\\u0000\\ud800"}', headers=headers
        )
        (stored,) = await kept(database)
    assert stored.summary.properties["headers"] == {"n\\0ul": "a\\0b"}


async def test_a_letter_that_the_broker_delivers_twice_is_kept_once(database: Database, publisher: Publisher) -> None:
    """The coordinator died between its commit and its acknowledgement. A repeated message is another letter."""
    keeper = LetterKeeper(database, publisher)
    one = Delivery(
        Queues.LETTERS.value,
        b"{}",
        None,
        "workflow.start",
        "m",
        None,
        None,
        redelivered=False,
        exchange=Exchanges.DEAD.value,
        properties={"message_id": "m", "headers": {"x-death": [{"reason": "expired", "time": SENT}]}},
    )
    await keeper.take(one)
    await keeper.take(replace(one, redelivered=True))
    await kept(database, 1)
    await keeper.take(one)
    await kept(database, 2)
    ours = replace(one, routing_key="", properties={"headers": {"x-dead-letter-id": uuid4().hex, "x-reason": "r"}})
    await keeper.take(ours)
    await keeper.take(ours)
    await kept(database, 3)


async def test_a_flood_of_letters_stays_in_the_broker(
    database: Database, monkeypatch: pytest.MonkeyPatch, amqp_url: str, publisher: Publisher
) -> None:
    monkeypatch.setattr(coordinator_letters, "MAX_LETTERS", 3)
    monkeypatch.setattr(coordinator_letters, "CHECK_EVERY", 1)
    monkeypatch.setattr(coordinator_letters, "PAUSE", 0.05)
    for number in range(5):
        await publish(amqp_url, Exchanges.DEAD, "", b"%d" % number)
    async with reading(amqp_url, database, publisher, few=1):
        await until(lambda: _count(database, 3), "there is room for three")
        for stored in await kept(database, 3):
            await discard(database, stored.summary.letter_id, "ana")
        await kept(database, 2)


async def _count(database: Database, count: int) -> bool:
    return bool(await database.pool.fetchval("SELECT count(*) = $1 FROM dead_letters", count))


async def test_a_letter_that_cannot_be_stored_stays_in_its_queue_and_makes_no_other_letter(
    database: Database, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise asyncpg.DataError("a defect")

    monkeypatch.setattr(coordinator_letters, "keep", refuse)
    one = Delivery(Queues.LETTERS.value, b"{}", None, "", None, None, None, redelivered=False)
    with pytest.raises(DeclinedError):
        await LetterKeeper(database, publisher).take(one)

    async def lose(*_: object, **__: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError

    monkeypatch.setattr(coordinator_letters, "keep", lose)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await LetterKeeper(database, publisher).take(one)


async def test_the_management_ui_shows_each_letter_with_its_reason_and_without_its_token(
    amqp_url: str, database: Database, publisher: Publisher
) -> None:
    """B41: a copy for people, whoever has made the letter."""
    death = {"x-death": [{"reason": "expired", "queue": "orchestrator.callbacks", "time": SENT}]}
    async with reading(amqp_url, database, publisher, {Queues.COMMANDS.value: fail}):
        await publish(
            amqp_url, Exchanges.COMMANDS, "workflow.start", b"[]", message_id="m", headers={"tenant": "north"}
        )
        await kept(database, 1)
        letter = await only(amqp_url, Queues.DEAD)
        assert (letter.body, letter.message_id, letter.headers["tenant"]) == (b"[]", "m", "north")
        assert letter.headers["x-reason"] == "it is nonsense"
        assert (letter.headers["x-queue"], letter.headers["x-routing-key"]) == (
            "orchestrator.commands",
            "workflow.start",
        )
        (stored,) = await kept(database, 1)
        assert letter.headers["x-dead-letter-id"] == stored.summary.letter_id.hex
        broker_made = Delivery(
            Queues.LETTERS.value,
            b"{}",
            None,
            "callback.completed",
            None,
            "the token",
            None,
            redelivered=False,
            exchange=Exchanges.DEAD.value,
            properties={"correlation_id": "the token", "headers": death},
        )
        await LetterKeeper(database, publisher).take(broker_made)
        copied = await only(amqp_url, Queues.DEAD)
    assert copied.correlation_id is None
    assert "expired in orchestrator.callbacks" in str(copied.headers["x-reason"])
    assert "the token" not in repr((copied.headers, copied.body))


async def test_a_binding_of_an_older_version_is_removed(amqp_url: str, publisher: Publisher) -> None:
    """It would show each letter twice, and those of the broker with their token."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(Queues.DEAD, ensure=False)
        await queue.bind(Exchanges.DEAD, "")
        await publisher.check()
        await publish(amqp_url, Exchanges.DEAD, "", b"{}")
        assert await ready(amqp_url, Queues.DEAD) == 0
        assert await ready(amqp_url, Queues.LETTERS) == 1


def test_a_letter_of_the_queue_itself_can_be_read() -> None:
    """Published into the queue by its name."""
    one = Delivery(Queues.LETTERS.value, b"x", None, "orchestrator.letters", None, None, None, redelivered=False)
    assert read_letter(one).reason == ""
