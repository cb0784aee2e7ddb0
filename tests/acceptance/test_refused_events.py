"""A queue of events that is full for a while: nothing is lost, nothing comes out of order, and no step waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from uuid import UUID

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from pamqp.common import FieldValue

from tests.acceptance.client import EVENTS
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

QUEUE = "svc.reader.events"
TAKES_ONE: dict[str, FieldValue] = {"x-max-length": 1, "x-overflow": "reject-publish"}


class Reader:
    """Another service, whose queue takes one event and refuses the rest until the service reads."""

    def __init__(self, engine: Installation) -> None:
        self._background = engine.background
        self._url = engine.amqp_url
        self._sequences: dict[str, list[int]] = {}
        self._background.run(self._open())

    def close(self) -> None:
        """Close the connection."""
        self._background.run(self._connection.close())

    def read(self) -> None:
        """Take events from now on, one after the other; the queue still refuses what comes in between."""
        self._background.run(self._consume())

    def depth(self) -> int:
        """Return how many events wait."""
        return self._background.run(self._measure())

    def first_times(self, process_id: UUID) -> list[int]:
        """Return the events of a process in the order in which each came for the first time."""
        return list(dict.fromkeys(self._sequences.get(str(process_id), [])))

    async def _open(self) -> None:
        self._connection = await aio_pika.connect(self._url)
        self._channel = await self._connection.channel()
        await self._channel.set_qos(prefetch_count=1)
        self._queue = await self._channel.declare_queue(QUEUE, durable=True, arguments=TAKES_ONE)
        await self._queue.bind(EVENTS, "#")

    async def _consume(self) -> None:
        await self._queue.consume(self._take)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        async with message.process():
            self._sequences.setdefault(message.correlation_id or "", []).append(json.loads(message.body)["sequence"])

    async def _measure(self) -> int:
        queue = await self._channel.declare_queue(QUEUE, passive=True)
        return queue.declaration_result.message_count or 0


def assert_every_event_comes_in_order(engine: Installation, reader: Reader, process_ids: Iterable[UUID]) -> None:
    """Wait for all events of these processes; repeated ones may come in between."""
    for process_id in process_ids:
        newest = len(engine.log(process_id))
        until(lambda p=process_id, n=newest: len(reader.first_times(p)) >= n, f"all events of {process_id} come")  # type: ignore[misc]
        assert reader.first_times(process_id) == list(range(1, newest + 1))


def test_events_that_a_full_queue_refuses_come_later_in_order_and_no_step_waits_for_them(
    installations: MakeInstallation,
) -> None:
    """The results of one process go to either coordinator; the queue refuses, takes and refuses again."""
    engine = installations()
    for program in [engine.coordinator(), engine.coordinator(), engine.consumer()]:
        program.ready()
    with closing(Reader(engine)) as reader:
        process_ids = [engine.start("chain") for _ in range(5)]
        for process_id in process_ids:
            engine.wait_for(process_id, "completed")
        assert reader.depth() == 1
        until(lambda: engine.json("status")["unconfirmed_events"]["processes"] == 5, "status counts the processes")
        assert "events: 5 processes have events that the broker has not confirmed" in engine.command("status").stdout

        reader.read()
        later = [engine.start("chain") for _ in range(5)]
        for process_id in later:
            engine.wait_for(process_id, "completed")
        assert_every_event_comes_in_order(engine, reader, process_ids + later)
        until(
            lambda: engine.json("status")["unconfirmed_events"]["processes"] == 0, "status has nothing left to report"
        )


def test_events_that_were_refused_survive_their_coordinators_and_come_while_a_step_runs(
    installations: MakeInstallation,
) -> None:
    """SIGKILL to every coordinator while the queue is full and the processes are inside a step."""
    engine = installations()
    coordinators = [engine.coordinator().ready(), engine.coordinator().ready()]
    engine.consumer().ready()
    with closing(Reader(engine)) as reader:
        process_ids = [engine.start("holds") for _ in range(4)]
        for process_id in process_ids:
            engine.wait_for_note(process_id, "held")
        for program in coordinators:
            program.kill()
        engine.coordinator().ready()

        reader.read()
        assert_every_event_comes_in_order(engine, reader, process_ids)
        for process_id in process_ids:
            engine.open_gate(f"hold-{process_id}")
            engine.wait_for(process_id, "completed")
        assert_every_event_comes_in_order(engine, reader, process_ids)
