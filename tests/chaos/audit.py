"""The record of another service that has every event: read as they come, from a durable queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from uuid import UUID

import aio_pika

from tests.acceptance.client import BROKER_AWAY
from tests.background import Background
from tests.cluster.audit import QUEUE, bind

CALM = 0.5
"""Seconds without an event after which there is none left."""
SECONDS = 60.0
DAY = 86400.0


class Recorder:
    """Collects events in a thread of its own, and connects again whenever the broker was away."""

    def __init__(self, url: str) -> None:
        self.events: list[tuple[UUID, int]] = []
        self._url = url
        self._background = Background()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._record, name="recorder", daemon=True)
        self._empty: tuple[float, float] | None = None
        """When the broker first and last answered that the queue is empty, since the last event and the last failure."""

    def bind(self) -> None:
        """Make the queue, so that it has every event from now on."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self._background.run(bind(self._url), 20)
            except BROKER_AWAY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def start(self) -> None:
        """Begin to record what comes into the queue."""
        self._thread.start()

    def drain(self) -> None:
        """Wait until what is published has been recorded: the broker has answered for a while that nothing is left.

        That no event comes does not say so: the queue may be without a leader, or the connection be cut.
        """
        self._empty = None
        deadline = time.monotonic() + SECONDS
        while (empty := self._empty) is None or empty[1] - empty[0] < CALM:
            assert time.monotonic() < deadline, (
                f"the broker has not said for {SECONDS:g} s that the queue '{QUEUE}' is empty"
            )
            time.sleep(0.05)

    def close(self) -> None:
        """End."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(SECONDS)
        self._background.close()

    def _record(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(*BROKER_AWAY):
                self._background.run(self._read(), DAY)
            self._empty = None
            self._closing.wait(0.1)

    async def _read(self) -> None:
        connection = await aio_pika.connect(self._url, timeout=5)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(200)
            queue = await channel.get_queue(QUEUE, ensure=False)
            while not self._closing.is_set():
                message = await queue.get(fail=False, timeout=5)
                if message is None:
                    now = time.monotonic()
                    self._empty = (now if self._empty is None else self._empty[0], now)
                    await asyncio.sleep(0.05)
                    continue
                body = json.loads(message.body)
                self.events.append((UUID(body["process_id"]), body["sequence"]))
                self._empty = None
                await message.ack()
