"""What a consumer does with the commands of steps that it cannot run, on a real database."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from consumers import hand_back
from consumers.hand_back import FIRST_PAUSE, GROWTH, LONGEST_PAUSE, HandBack
from consumers.heartbeat import Heartbeat
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Publisher
from orchestrator.db.readers import make_waiting_due
from orchestrator.db.session import Database
from orchestrator.messages import MAX_DECLINES, StepCommand, decode
from orchestrator.registry import Abilities
from orchestrator.watchdog import LoopWatch
from tests.integration.waiting import until

REASON = "the workflow 'some' is not known to this program"
INSERT = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, due_at)
VALUES ($1, $2, 'some', false, 'running', 1, true, 3, 1, 0, 0, 0, '{}', 'me', 'me', now() + interval '1 hour')
"""


class Queue:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []

    async def publish(self, message: Outgoing) -> None:
        self.messages.append(message)

    @property
    def commands(self) -> list[StepCommand]:
        return [decode(StepCommand, one.body) for one in self.messages]


class Consumer:
    """A consumer that cannot run the workflow ``some``, and a process that waits at a step of it."""

    def __init__(self, database: Database, process_id: UUID) -> None:
        self.database = database
        self.queue = Queue()
        self.stopping = asyncio.Event()
        self.me = uuid4()
        self.command = StepCommand(process_id=process_id, workflow="some", step="Step", position=1, attempt=3)
        self.hand_back = HandBack(database.pool, cast("Publisher", self.queue), self.me, stopping=self.stopping)

    async def decline(self, **changes: Any) -> None:
        await self.hand_back(self.command.model_copy(update=changes), "default", REASON)

    async def dispatches(self) -> int:
        return int(await self.database.pool.fetchval("SELECT dispatches FROM processes"))

    async def join(self, queue: str = "default", *, knows: str = "some") -> UUID:
        """Let another consumer come."""
        watch = LoopWatch(asyncio.get_running_loop())
        abilities = Abilities({knows: "a plan"})
        heartbeat = Heartbeat(self.database, [queue], 5, abilities, watch, interval=2, presumed_dead_after=10)
        await heartbeat.register()
        return heartbeat.consumer_id


@pytest.fixture
async def consumer(database: Database) -> Consumer:
    workflow = await database.pool.fetchval(
        "INSERT INTO workflows (name, target) VALUES ('some', 'SYSTEM') RETURNING workflow_id"
    )
    process_id = uuid4()
    await database.pool.execute(INSERT, process_id, workflow)
    return Consumer(database, process_id)


async def test_a_command_goes_to_the_end_of_its_queue_with_the_name_of_who_has_declined_it(consumer: Consumer) -> None:
    await consumer.join()
    other = uuid4()
    await consumer.decline(declined_by=(other,))
    (message,) = consumer.queue.messages
    assert (message.exchange, message.routing_key, message.mandatory) == ("orchestrator.steps", "default", True)
    assert consumer.queue.commands == [consumer.command.model_copy(update={"declined_by": (other, consumer.me)})]
    assert await consumer.dispatches() == 0


async def test_a_command_that_comes_back_is_kept_longer_each_time(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def wait(seconds: float, _: asyncio.Event) -> bool:
        pauses.append(seconds)
        return False

    monkeypatch.setattr(hand_back, "wait_or_stop", wait)
    await consumer.join()
    for _ in range(MAX_DECLINES + 5):
        await consumer.hand_back((consumer.queue.commands or [consumer.command])[-1], "default", REASON)
    assert pauses[:3] == [FIRST_PAUSE, GROWTH * FIRST_PAUSE, GROWTH**2 * FIRST_PAUSE]
    assert sum(pauses[:8]) < 1, "what is unlucky eight times beside an idle consumer is not late"
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE
    assert len(pauses) == MAX_DECLINES + 4
    assert len(consumer.queue.commands[-1].declined_by) == MAX_DECLINES


async def test_a_copy_of_a_command_that_is_kept_is_dropped(consumer: Consumer) -> None:
    await consumer.join()
    kept = asyncio.create_task(consumer.decline(declined_by=(consumer.me,) * 10))
    await until(lambda: consumer.hand_back.kept == 1, "the command is kept")
    await consumer.decline()
    assert consumer.queue.messages == []

    consumer.stopping.set()
    await kept
    assert len(consumer.queue.messages) == 1, "a consumer that stops keeps nothing"
    assert consumer.hand_back.kept == 0


async def test_a_command_that_nobody_can_run_is_dropped_and_due_once_somebody_can(consumer: Consumer) -> None:
    await consumer.join("another")
    await consumer.join(knows="another")
    silent = await consumer.join()
    pool = consumer.database.pool
    await pool.execute("UPDATE consumers SET seen_at = now() - interval '1 minute' WHERE consumer_id = $1", silent)
    await consumer.decline()
    assert consumer.queue.messages == []
    assert await consumer.dispatches() == -1

    is_due = "SELECT due_at <= now() FROM processes"
    await make_waiting_due(pool, {"another": ""})
    assert not await pool.fetchval(is_due)
    await make_waiting_due(pool, {"some": ""})
    assert await pool.fetchval(is_due)


async def test_a_consumer_that_has_reported_nothing_may_know_the_workflow(consumer: Consumer) -> None:
    older = await consumer.join(knows="another")
    await consumer.database.pool.execute("UPDATE consumers SET knows = NULL WHERE consumer_id = $1", older)
    await consumer.decline()
    assert len(consumer.queue.messages) == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE processes SET attempt = 4",
        "UPDATE processes SET position = 2",
        "UPDATE processes SET status = 'aborted'",
        "UPDATE processes SET claimed_by = gen_random_uuid()",
        "UPDATE engine_settings SET global_lock = true",
        "DELETE FROM processes",
    ],
)
async def test_a_command_that_no_longer_fits_its_row_is_dropped(consumer: Consumer, change: str) -> None:
    """A paused engine makes all its processes due when it goes on."""
    await consumer.join()
    await consumer.database.pool.execute(change)
    await consumer.decline()
    assert consumer.queue.messages == []
