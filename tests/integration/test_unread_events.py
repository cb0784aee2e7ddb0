"""Events that nobody has bound a queue for are not all published, and whoever binds one misses none from then on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractQueue
from pamqp.common import FieldValue
from structlog.testing import capture_logs

from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Exchanges, Topology, step_queue
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.db.session import DriverPool
from orchestrator.messages import Advanced, LoggedEntry, NextStep, StepCommand, decode
from tests.integration.waiting import until
from tests.servers import Servers

STEPS = 10
EVENT = Outgoing(Exchanges.EVENTS, "process.x.running", "process.event", b"{}", optional=True)


@pytest.fixture
async def publisher(amqp_url: str) -> AsyncIterator[Publisher]:
    made = Publisher(BrokerAddress(amqp_url, "test", 30), Topology(), 30)
    running = asyncio.create_task(made.run())
    await until(lambda: made.is_ready, "the publisher is connected")
    yield made
    await made.stop()
    await running


@pytest.fixture
async def connection(amqp_url: str) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    async with await aio_pika.connect(amqp_url) as connection:
        yield connection


def announcer_of(publisher: Publisher) -> Announcer:
    """Return an announcer; these tests write no marks, so it needs no database."""
    return Announcer(publisher, cast("DriverPool", None))


@dataclass(eq=False)
class Process:
    """A process of ten steps, whose log grows by a few entries at a time."""

    workflow: str = "w"
    process_id: UUID = field(default_factory=uuid4)
    committed: int = 0
    confirmed: int = 0

    @property
    def log(self) -> list[tuple[str, str]]:
        """Kind and status of each entry."""
        return [
            ("process", "created"),
            ("process", "running"),
            *STEPS * [("step", "success")],
            ("process", "completed"),
        ]

    @property
    def is_settled(self) -> bool:
        return self.confirmed == len(self.log)

    def commit(self, entries: int) -> Advanced:
        """Store so many more entries; return the message about all that are not confirmed."""
        self.committed = min(self.committed + entries, len(self.log))
        sequences = range(self.confirmed + 1, self.committed + 1)
        return Advanced(
            process_id=self.process_id,
            workflow=self.workflow,
            target="SYSTEM",
            is_task=False,
            status="completed",
            sequence=self.committed,
            user="me",
            at=datetime.now(UTC),
            announced=self.confirmed,
            entries=[
                LoggedEntry(
                    sequence=one,
                    kind=self.log[one - 1][0],
                    name="n",
                    status=self.log[one - 1][1],
                    attempt=1,
                    author="me",
                )
                for one in sequences
            ],
        )

    def sequences(self, since: int, *kinds: str) -> list[int]:
        """Return the entries of these kinds after one."""
        return [number for number, (kind, _) in enumerate(self.log, 1) if number > since and kind in kinds]


class Stream:
    """Processes that run side by side, each announced as its log grows, as many messages as it is asked for."""

    def __init__(self, *announcers: Announcer, at_once: int = 20) -> None:
        self._announcers = announcers
        self._at_once = at_once
        self._chance = random.Random(1)
        self._room = asyncio.Semaphore(0)
        self._stopping = False
        self.processes: list[Process] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run during the block, and let the processes that have begun end."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._at_once):
                tasks.create_task(self._follow())
            yield
            self._stopping = True
            for _ in range(self._at_once):
                self._room.release()

    async def goes_on(self, messages: int) -> None:
        """Announce so many more messages."""
        for _ in range(messages):
            self._room.release()
        await until(self._room.locked, "the messages are taken in hand")

    async def goes_on_during(self, binding: Awaitable[None]) -> dict[str, int]:
        """Announce while a queue is bound; return how long the log of each process was when it was."""

        async def bind() -> dict[str, int]:
            await binding
            return {str(one.process_id): one.committed for one in self.processes}

        found, _ = await asyncio.gather(bind(), self.goes_on(100))
        return found

    async def _follow(self) -> None:
        while not self._stopping:
            process = Process()
            self.processes.append(process)
            while not process.is_settled:
                if not self._stopping:
                    await self._room.acquire()
                message = process.commit(self._chance.randrange(1, 6))
                announcer = self._chance.choice(self._announcers)
                confirmed = await announcer.announce(message, probe=True)
                if confirmed == process.confirmed:
                    await asyncio.sleep(0)  # refused at once, as others are for some seconds; they must go on
                process.confirmed = confirmed


class Reader:
    """Another service with a queue of its own."""

    def __init__(self, exchange: AbstractExchange, queue: AbstractQueue) -> None:
        self._exchange, self.queue = exchange, queue
        self._got: dict[str, list[int]] = {}

    @classmethod
    async def open(
        cls, connection: aio_pika.abc.AbstractConnection, arguments: dict[str, FieldValue] | None = None
    ) -> Reader:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1 if arguments else 1000)
        queue = await channel.declare_queue(exclusive=True, arguments=arguments)
        return cls(await channel.get_exchange(Exchanges.EVENTS), queue)

    async def bind(self, key: str) -> None:
        await self.queue.bind(self._exchange, key)

    async def unbind(self, key: str) -> None:
        await self.queue.unbind(self._exchange, key)

    async def read(self) -> None:
        await self.queue.consume(self._take)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        async with message.process():
            self._got.setdefault(message.correlation_id or "", []).append(json.loads(message.body)["sequence"])

    def first_times(self, process: Process) -> list[int]:
        return list(dict.fromkeys(self._got.get(str(process.process_id), [])))

    async def has_all(self, processes: list[Process], since: dict[str, int], *kinds: str) -> None:
        """Wait for all events of entries that were stored later; there are none before them but such as follow gaplessly."""
        for process in processes:
            wanted = set(process.sequences(since.get(str(process.process_id), 0), *kinds))

            def is_whole(process: Process = process, wanted: set[int] = wanted) -> bool:
                got = self.first_times(process)
                return wanted <= set(got) and got == process.sequences(min(got, default=99) - 1, *kinds)

            await until(is_whole, "all events of the process have come, in order")


async def test_of_many_processes_that_nobody_listens_to_few_events_are_published(publisher: Publisher) -> None:
    announcer = announcer_of(publisher)
    alone = Process()
    assert await announcer.announce(alone.commit(99)) == len(alone.log)
    assert publisher.sent == 4  # one of each key
    together = [Process() for _ in range(100)]
    assert await asyncio.gather(*(announcer.announce(one.commit(99)) for one in together)) == 100 * [len(alone.log)]
    assert publisher.sent <= 4 + 2 * 4


async def test_a_reader_that_binds_meanwhile_gets_everything_that_happens_from_then_on(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection
) -> None:
    stream = Stream(announcer_of(publisher))
    reader = await Reader.open(connection)
    await reader.read()
    async with stream.running():
        await stream.goes_on(200)
        since = await stream.goes_on_during(reader.bind("#"))
        await stream.goes_on(100)
    under_way = [one for one in stream.processes if 0 < since.get(str(one.process_id), 0) < len(one.log)]
    assert under_way
    await reader.has_all(stream.processes, since, "process", "step")


async def test_readers_of_some_and_of_all_events_get_theirs_again_after_they_were_away(
    publisher: Publisher, amqp_url: str, connection: aio_pika.abc.AbstractConnection
) -> None:
    """Two coordinators publish; the readers bind, unbind and bind again while they do."""
    other = Publisher(BrokerAddress(amqp_url, "other", 30), Topology(), 30)
    await other.open()
    stream = Stream(announcer_of(publisher), announcer_of(other))
    narrow, wide = await Reader.open(connection), await Reader.open(connection)
    async with stream.running():
        await stream.goes_on(100)
        for _ in range(3):
            since_narrow = await stream.goes_on_during(narrow.bind("step.#"))
            since_wide = await stream.goes_on_during(wide.bind("#"))
            await stream.goes_on(50)
            ended = [one for one in stream.processes if one.is_settled and str(one.process_id) not in since_narrow]
            assert ended
            await narrow.unbind("step.#")
            await wide.unbind("#")
            for reader in (narrow, wide):
                await reader.read()
            await narrow.has_all(ended, since_narrow, "step")
            await wide.has_all(ended, since_wide, "process", "step")
    await other.close()


async def test_a_reader_with_a_full_queue_gets_all_in_order_once_it_reads(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection
) -> None:
    """It binds its queue while nobody is bound, and refuses while it has one event."""
    stream = Stream(announcer_of(publisher), at_once=4)
    reader = await Reader.open(connection, {"x-max-length": 1, "x-overflow": "reject-publish"})
    async with stream.running():
        await stream.goes_on(40)
        since = await stream.goes_on_during(reader.bind("#"))
        await reader.read()
    await reader.has_all(stream.processes, since, "process", "step")


async def test_after_the_loss_of_the_connection_a_reader_that_has_bound_meanwhile_misses_nothing(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection, servers: Servers, amqp_url: str
) -> None:
    vhost = urlsplit(amqp_url).path[1:]
    stream = Stream(announcer_of(publisher))
    reader = await Reader.open(connection)
    await reader.read()

    async def close_publisher() -> bool:
        await stream.goes_on(20)
        found = await asyncio.to_thread(servers.call, "GET", f"vhosts/{vhost}/connections")
        assert isinstance(found, list)
        theirs = [one["name"] for one in found if "connection_name" in one.get("client_properties", {})]
        for name in theirs:
            await asyncio.to_thread(servers.call, "DELETE", f"connections/{quote(name, safe='')}")
        return bool(theirs)

    async with stream.running():
        # The management API learns of a new connection some seconds after it was made.
        await until(close_publisher, "the connection of the publisher is closed")
        since = await stream.goes_on_during(reader.bind("#"))
        await stream.goes_on(100)
    await reader.has_all(stream.processes, since, "process", "step")


async def test_an_alternate_exchange_gets_every_event_that_nobody_else_takes(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection, servers: Servers, amqp_url: str
) -> None:
    vhost = urlsplit(amqp_url).path[1:]
    channel = await connection.channel()
    rest = await channel.declare_exchange("the.rest", aio_pika.ExchangeType.FANOUT)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(rest)
    policy = {
        "pattern": "^orchestrator.events$",
        "definition": {"alternate-exchange": "the.rest"},
        "apply-to": "exchanges",
    }
    await asyncio.to_thread(servers.call, "PUT", f"policies/{vhost}/rest", policy)

    async def is_taken() -> bool:
        return (await publisher.publish(EVENT)).is_taken

    await until(is_taken, "the policy is in force")
    await queue.purge()
    reader = Reader(rest, queue)
    await reader.read()
    processes = [Process() for _ in range(5)]
    announcer = announcer_of(publisher)
    await asyncio.gather(*(announcer.announce(one.commit(99)) for one in processes))
    await reader.has_all(processes, {}, "process", "step")


async def test_an_exchange_that_is_bound_to_ours_counts_by_its_queues(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection
) -> None:
    channel = await connection.channel()
    theirs = await channel.declare_exchange("theirs", aio_pika.ExchangeType.FANOUT, auto_delete=True)
    await theirs.bind(Exchanges.EVENTS, "#")
    assert not (await publisher.publish(EVENT)).is_taken
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(theirs)
    assert (await publisher.publish(EVENT)).is_taken


async def test_an_event_that_nobody_takes_is_no_trouble_and_a_missing_exchange_is_made_again(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection
) -> None:
    with capture_logs() as lines:
        for _ in range(20):
            assert not (await publisher.publish(EVENT)).is_taken
    assert lines == []
    channel = await connection.channel()
    await channel.exchange_delete(Exchanges.EVENTS)
    process = Process()
    assert await announcer_of(publisher).announce(process.commit(99)) == len(process.log)
    await channel.get_exchange(Exchanges.EVENTS, ensure=True)


async def test_a_command_says_whether_a_queue_was_bound_for_the_events_of_its_workflows_steps(
    publisher: Publisher, connection: aio_pika.abc.AbstractConnection
) -> None:
    announcer = announcer_of(publisher)
    dispatcher = Dispatcher(publisher, announcer)
    channel = await connection.channel()
    commands = await channel.get_queue(step_queue("default"))

    async def dispatch() -> StepCommand:
        message = Process().commit(1)
        following = NextStep(position=1, attempt=1, queue="default", step="s", lost=0)
        assert await dispatcher.publish(message.model_copy(update={"next": following, "status": "running"}))
        command = await commands.get(no_ack=True, timeout=30)
        assert command is not None
        return decode(StepCommand, command.body)

    assert not (await dispatch()).unread, "nothing is known yet"
    await announcer.announce(Process().commit(STEPS + 3))
    assert (await dispatch()).unread
    reader = await channel.declare_queue(exclusive=True)
    await reader.bind(Exchanges.EVENTS, "step.#")
    await announcer.announce(Process().commit(STEPS + 3))
    assert not (await dispatch()).unread
