"""The field engineers' own program. It knows AMQP and nothing of the engine.

Takes jobs from its queue – each with a token, an exchange to answer on, and what is to be done – works, and publishes

    callback.progress     any JSON; people see the newest
    callback.completed    any JSON object; it becomes the step's result

to that exchange, with the token as the correlation id. Its account may write there and nowhere else.

    FIELD_AMQP_URL=amqp://… python field_worker.py
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

QUEUE = "field.jobs"


class Engineers:
    """Do each job once, however often it is sent."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._known: set[str] = set()

    async def take(self, message: AbstractIncomingMessage) -> None:
        """Take one job; it is acknowledged when its answer is confirmed, so that a crash here loses none."""
        async with message.process(requeue=True):
            key = message.message_id or ""
            if key in self._known:
                print("this job is known already", flush=True)
                return
            self._known.add(key)
            try:
                await self._work(json.loads(message.body))
            except BaseException:
                self._known.discard(key)
                raise

    async def _work(self, job: dict[str, str]) -> None:
        engineer = random.choice(["Ada", "Grace", "Edith"])
        await self._tell(job, "callback.progress", {"engineer": engineer, "where": f"on the way to {job['where']}"})
        await asyncio.sleep(1.5)  # the work
        await self._tell(job, "callback.completed", {"engineer": engineer, "light": -7.5})
        print(f"{engineer} has done this: {job['task']}", flush=True)

    async def _tell(self, job: dict[str, str], key: str, body: dict[str, object]) -> None:
        exchange = await self._channel.get_exchange(job["exchange"], ensure=False)
        answer = aio_pika.Message(
            json.dumps(body).encode(),
            content_type="application/json",
            correlation_id=job["token"],
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await exchange.publish(answer, key, mandatory=True, timeout=10)


async def work() -> None:
    """Take jobs until SIGTERM."""
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    async with await aio_pika.connect_robust(os.environ["FIELD_AMQP_URL"], timeout=10) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        await queue.consume(Engineers(channel).take)
        print("ready", flush=True)
        await asked_to_stop.wait()


if __name__ == "__main__":
    asyncio.run(work())
