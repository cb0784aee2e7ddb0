"""Start thousands of processes at once, by a program of its own.

To publish thousands of commands takes an event loop seconds. In the program that times single commands these would wait for it,
and the figures would be the benchmark's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from uuid import uuid4

import aio_pika

COMMANDS = "orchestrator.commands"
"""The exchange for commands."""


class Flood:
    """Sends start commands from another process."""

    def __init__(self, amqp_url: str, pool: ProcessPoolExecutor) -> None:
        self._amqp_url = amqp_url
        self._pool = pool

    async def send(self, count: int, workflow: str) -> None:
        """Start processes at once; return when the broker has confirmed all commands."""
        await asyncio.get_running_loop().run_in_executor(self._pool, _send, self._amqp_url, count, workflow)


@asynccontextmanager
async def flood_of(amqp_url: str) -> AsyncIterator[Flood]:
    """Provide what sends many, once its program runs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        flood = Flood(amqp_url, pool)
        await flood.send(0, "")
        yield flood


def _send(amqp_url: str, count: int, workflow: str) -> None:
    asyncio.run(_publish(amqp_url, count, workflow))


async def _publish(amqp_url: str, count: int, workflow: str) -> None:
    body = json.dumps({"workflow": workflow, "user": "benchmark"}).encode()
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        await asyncio.gather(
            *(exchange.publish(aio_pika.Message(body, message_id=uuid4().hex), "workflow.start") for _ in range(count))
        )
