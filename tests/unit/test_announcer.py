"""The announcer, with a broker and a database that do as they are told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer, Publisher
from orchestrator.coordinator import announcer as module
from orchestrator.coordinator.announcer import AGAIN, Announcer
from orchestrator.db.processes.outbox import Mark
from orchestrator.db.session import DriverPool
from orchestrator.errors import PublishError
from orchestrator.messages import Advanced, LoggedEntry

BEGINS, ENDS = "the broker does not confirm events", "the broker confirms events again"


class Broker:
    """Refuses all events from a certain number on."""

    sent = 0

    def __init__(self, room: int) -> None:
        self.room = room
        self.tries = 0

    async def publish(self, _: Outgoing) -> Answer:
        self.tries += 1
        if self.room == 0:
            raise PublishError("refused")
        self.room -= 1
        return Answer(is_taken=True, place=None)


class Pool:
    """Writes down marks, unless it is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.written: list[tuple[UUID, int, float | None]] = []

    async def execute(self, _: str, *columns: list[Any]) -> None:
        if self.is_away:
            raise asyncpg.ConnectionDoesNotExistError("away")
        self.written += zip(*columns, strict=True)


def announcer_of(broker: Broker, pool: Pool | None = None) -> Announcer:
    return Announcer(cast("Publisher", broker), cast("DriverPool", pool or Pool()))


def advanced(*sequences: int, announced: int = 0, workflow: str = "some") -> Advanced:
    entries = [
        LoggedEntry(sequence=one, kind="process", name="n", status="running", attempt=0, author="me")
        for one in sequences
    ]
    return Advanced(
        process_id=uuid4(),
        workflow=workflow,
        target="SYSTEM",
        is_task=False,
        status="running",
        sequence=sequences[-1],
        user="me",
        at=datetime.now(UTC),
        announced=announced,
        entries=entries,
    )


@pytest.mark.parametrize(
    ("sequences", "announced", "room", "confirmed", "tries"),
    [
        ((1, 2, 3), 0, 9, 3, 3),
        ((4,), 3, 9, 4, 1),
        ((1, 2, 3), 0, 1, 1, 2),
        ((1, 2, 3), 2, 9, 3, 1),
        ((5,), 3, 9, 3, 0),
        ((3,), 3, 9, 3, 0),
    ],
    ids=["all", "follows", "refused", "partly-known", "gap", "known"],
)
async def test_an_event_is_published_only_behind_the_confirmed_ones(
    sequences: tuple[int, ...], announced: int, room: int, confirmed: int, tries: int
) -> None:
    broker = Broker(room)
    assert await announcer_of(broker).announce(advanced(*sequences, announced=announced)) == confirmed
    assert broker.tries == tries


async def test_after_a_refusal_only_probes_of_the_workflow_are_published_until_one_is_confirmed() -> None:
    broker = Broker(0)
    announcer = announcer_of(broker)
    await announcer.announce(advanced(1))
    assert await announcer.announce(advanced(1)) == 0
    assert broker.tries == 1
    assert await announcer.announce(advanced(1), probe=True) == 0
    broker.room = 9
    assert await announcer.announce(advanced(1, workflow="another")) == 1
    assert await announcer.announce(advanced(1)) == 0
    assert await announcer.announce(advanced(1), probe=True) == 1
    assert await announcer.announce(advanced(1)) == 1


async def test_a_refusal_is_logged_once_and_its_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(0)
    announcer = announcer_of(broker)
    with capture_logs() as lines:
        for workflow in ("some", "another", "some"):
            await announcer.announce(advanced(1, workflow=workflow), probe=True)
        announcer.report_end()
        announcer.keep_refused({"some", "a third"})
        assert announcer.refused == {"some"}
        broker.room = 9
        await announcer.announce(advanced(1), probe=True)
        announcer.report_end()  # too early: the queue may be full again
        monkeypatch.setattr(module, "CALM", 0.0)
        for _ in range(2):
            announcer.report_end()
    assert [line["event"].split(";")[0] for line in lines] == [BEGINS, ENDS]


async def test_marks_of_refused_events_are_written_before_the_message_counts_as_handled() -> None:
    pool = Pool()
    announcer = announcer_of(Broker(1), pool)
    refused, rests, gap = advanced(1, 2), advanced(1), advanced(5, announced=3)
    await announcer.record(rests, 1, is_claimed_next=False)
    await announcer.record(advanced(1), 1, is_claimed_next=True)
    await announcer.record(gap, 3, is_claimed_next=True)
    assert pool.written == []
    await announcer.record(refused, 1, is_claimed_next=True)
    assert pool.written == [(rests.process_id, 1, None), (refused.process_id, 1, AGAIN)]


async def test_marks_that_cannot_be_written_are_kept() -> None:
    pool = Pool()
    announcer = announcer_of(Broker(0), pool)
    message = advanced(1, 2)
    pool.is_away = True
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await announcer.record(message, 0, is_claimed_next=False)
    with capture_logs() as lines:
        await announcer.try_write_marks()
    assert [line["log_level"] for line in lines] == ["warning"]
    pool.is_away = False
    announcer.mark(message.process_id, Mark(2))
    await announcer.try_write_marks()
    assert pool.written == [(message.process_id, 2, AGAIN)]


async def test_what_a_consumer_sends_again_while_it_goes_on_is_published_once() -> None:
    """It repeats what it cannot know to be confirmed. Another coordinator would publish it again, in order."""
    broker = Broker(99)
    announcer = announcer_of(broker)
    first = advanced(1, 2, 3)
    assert await announcer.announce(first) == 3
    more = advanced(1, 2, 3, 4, 5).model_copy(update={"process_id": first.process_id})
    assert await announcer.announce(more) == 5
    assert broker.tries == 5
    assert await announcer_of(broker).announce(more) == 5
    assert broker.tries == 10


async def test_what_is_sent_again_while_the_broker_has_not_confirmed_it_yet_is_published_once() -> None:
    """On a busy machine the last step of a stretch ends before the events of the first ones are confirmed."""

    class SlowBroker(Broker):
        confirms = asyncio.Event()

        async def publish(self, message: Outgoing) -> Answer:
            answer = await super().publish(message)
            await self.confirms.wait()
            return answer

    broker = SlowBroker(99)
    announcer = announcer_of(broker)
    flushed = advanced(1, 2)
    last = flushed.model_copy(update={"entries": advanced(1, 2, 3).entries, "sequence": 3, "status": "completed"})
    announcing = [asyncio.create_task(announcer.announce(one)) for one in (flushed, last)]
    for _ in range(9):  # both have begun
        await asyncio.sleep(0)
    broker.confirms.set()
    assert await asyncio.gather(*announcing) == [2, 3]
    assert broker.tries == 3


async def test_of_processes_under_way_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 1)
    broker = Broker(99)
    announcer = announcer_of(broker)
    first, second = advanced(1), advanced(1)
    for one in (first, second, first):
        await announcer.announce(one)
    assert broker.tries == 3


async def test_messages_about_one_process_take_turns_in_their_order_and_one_that_is_cancelled_passes_its_turn_on() -> (
    None
):
    class Slow(Broker):
        answers: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

        async def publish(self, message: Outgoing) -> Answer:
            answer = asyncio.get_running_loop().create_future()
            self.answers.put_nowait(answer)
            await answer
            return await super().publish(message)

    broker = Slow(99)
    announcer = announcer_of(broker)
    first = advanced(1)
    later = [first.model_copy(update={"entries": advanced(n).entries, "announced": n - 1}) for n in (2, 3, 4)]
    tasks = []
    for one in [first, *later]:
        tasks.append(asyncio.create_task(announcer.announce(one)))
        await asyncio.sleep(0)
    answer = broker.answers.get_nowait()
    assert broker.answers.empty(), "the others wait"
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    answer.set_result(None)
    assert await tasks[0] == 1
    tasks[2].cancel()  # it has its turn, and may have begun
    await asyncio.wait([tasks[2]])
    async with asyncio.timeout(10):
        while (answer := await broker.answers.get()).cancelled():
            pass
    answer.set_result(None)
    assert await tasks[3] == 4
    assert await announcer.announce(first) == 4, "nobody holds a turn"
