"""Senders that have no queue for answers: RabbitMQ's direct reply-to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import aio_pika

from tests.acceptance.client import COMMANDS
from tests.acceptance.installation import Installation

PSEUDO_QUEUE = "amq.rabbitmq.reply-to"


async def ask_directly(url: str, key: str, bodies: Mapping[str, object]) -> list[dict[str, Any]]:
    """Send messages, given by their ids, and return the answers that come to their connection."""
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await answers.put(message.body)

    connection = await aio_pika.connect(url, timeout=60)
    async with connection, connection.channel() as channel:
        replies = await channel.get_queue(PSEUDO_QUEUE, ensure=False)
        await replies.consume(take, no_ack=True)
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        for message_id, body in bodies.items():
            message = aio_pika.Message(json.dumps(body).encode(), reply_to=PSEUDO_QUEUE, message_id=message_id)
            await exchange.publish(message, key)
        async with asyncio.timeout(60):
            return [json.loads(await answers.get()) for _ in bodies]


def test_answers_by_direct_reply_to_arrive_and_answered_refusals_are_no_dead_letters(engine: Installation) -> None:
    right = {"workflow": "one_step", "user": "tester", "inputs": []}
    starts = {f"direct-{uuid4().hex}": right for _ in range(3)} | {
        "direct-wrong": right | {"inputs": [{}, {"too": "many"}]}
    }
    answers = engine.background.run(ask_directly(engine.amqp_url, "workflow.start", starts))
    assert [one["error"] for one in answers if "error" in one] == ["InvalidInputError"]
    started = {one["process_id"] for one in answers if "process_id" in one}
    assert len(started) == 3
    queries = {uuid4().hex: {"process_id": one} for one in started}
    found = engine.background.run(ask_directly(engine.amqp_url, "process.get", queries))
    assert {one["process_id"] for one in found} == started
    assert [one for one in engine.client.dead_letters() if one.message_id in starts | queries] == []
    assert "reply queue does not exist" not in engine.logs()
    assert "reply not published" not in engine.logs()
