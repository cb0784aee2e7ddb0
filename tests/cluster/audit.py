"""Another service's record of what happened: a durable queue that has every event, to be compared with the log."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import aio_pika

QUEUE = "audit"
EVENTS = "orchestrator.events"
QUIET = 3.0
"""Seconds without a message after which a queue counts as empty."""


@dataclass
class Comparison:
    """Events against log entries."""

    entries: int = 0
    missing: dict[UUID, list[int]] = field(default_factory=dict)
    unknown: dict[UUID, list[int]] = field(default_factory=dict)
    twice: int = 0
    late: int = 0
    """Events that came after a later one of their process, and not before it as well."""


async def bind(url: str) -> None:
    """Make the queue and let it have every event from now on."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        exchange = await channel.declare_exchange(EVENTS, "topic", durable=True)  # a wiped broker has none
        await queue.bind(exchange, "#")


async def drain(url: str) -> list[tuple[UUID, int]]:
    """Take everything out of the queue: the process and the sequence of each event, as they came."""
    found: list[tuple[UUID, int]] = []
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(200)
        queue = await channel.get_queue(QUEUE)
        messages: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        await queue.consume(messages.put)
        while True:
            try:
                message = await asyncio.wait_for(messages.get(), QUIET)
            except TimeoutError:
                return found
            body = json.loads(message.body)
            found.append((UUID(body["process_id"]), body["sequence"]))
            await message.ack()


def compare(events: list[tuple[UUID, int]], newest: Mapping[UUID, int]) -> Comparison:
    """Compare events with the newest sequence of each process's log, which has no gaps."""
    result = Comparison(entries=sum(newest.values()))
    came: dict[UUID, list[int]] = defaultdict(list)
    for process_id, sequence in events:
        came[process_id].append(sequence)
    for process_id in {*newest, *came}:
        sequences = came[process_id]
        first = list(dict.fromkeys(sequences))
        result.twice += len(sequences) - len(first)
        result.late += sum(one < max(first[:place], default=0) for place, one in enumerate(first))
        wanted = set(range(1, newest.get(process_id, 0) + 1))
        if missing := sorted(wanted - set(first)):
            result.missing[process_id] = missing
        if unknown := sorted(set(first) - wanted):
            result.unknown[process_id] = unknown
    return result
