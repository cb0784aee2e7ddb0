"""Messages while PostgreSQL is away: they wait at one gate, and none tries by itself."""

from __future__ import annotations

import asyncio

import pytest
import structlog.testing
import tenacity

from orchestrator.broker import gate as broker_gate
from orchestrator.broker.deliveries import Deliveries
from orchestrator.broker.gate import Gate
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Queues
from tests.integration.letter_bench import publish
from tests.integration.test_broker import TOPOLOGY, address, ready
from tests.integration.waiting import until

MESSAGES = 20


async def test_messages_wait_at_one_gate_while_the_database_is_away(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_gate, "SERVER_AWAY", tenacity.wait_fixed(0.01))
    monkeypatch.setattr(broker_gate, "FIRST_REMINDER", 0.05)
    is_away, tries, asked = True, 0, 0
    handled: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        nonlocal tries
        tries += 1
        if is_away:
            raise ConnectionResetError("the server has gone")
        handled.append(delivery.body)

    async def answers() -> bool:
        nonlocal asked
        asked += 1
        return not is_away

    publisher = Publisher(address(amqp_url), TOPOLOGY, 5)
    await publisher.check()
    deliveries = Deliveries(
        address(amqp_url),
        TOPOLOGY,
        {Queues.CALLBACKS.value: handle},
        prefetch=MESSAGES,
        max_bytes=1000,
        explain_transient=lambda _: "a server is away",
        publisher=publisher,
        gate=Gate(answers),
    )
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(deliveries.run())
        for number in range(MESSAGES):
            await publish(amqp_url, Exchanges.CALLBACKS, "callback.completed", str(number).encode())

        def said(event: str) -> int:
            return sum(one["event"] == event for one in logs)

        async def is_empty() -> bool:
            return await ready(amqp_url, Queues.CALLBACKS) == 0

        await until(is_empty, "the program has all messages")
        await until(lambda: said("the database is still away") >= 2, "the log reminds of it")
        before = asked
        await until(lambda: asked >= before + 10, "it is asked again and again")
        assert tries <= MESSAGES, "no message tries by itself"
        assert said("the database is away; messages wait") == 1
        is_away = False
        await until(lambda: len(handled) == MESSAGES, "all are handled")
        assert said("the database answers again") == 1
        assert [one for one in logs if "message kept" in one["event"]] == []
        is_away = True
        await publish(amqp_url, Exchanges.CALLBACKS, "callback.completed", b"last")
        await until(lambda: said("the database is away; messages wait") == 2, "it is away once more")
        await deliveries.stop(5)
        await running
    assert await ready(amqp_url, Queues.CALLBACKS) == 1, "a program that stops gives back what waits"
