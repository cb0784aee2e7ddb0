"""The reconciler's rounds on a real database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from orchestrator.broker.connection import BrokerAddress, QueueDepth
from orchestrator.broker.depths import Depths
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator import reconciler, republisher
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.processes.claims import LostClaim
from orchestrator.db.processes.due import Due, find_due
from orchestrator.db.session import Database
from orchestrator.errors import NotFoundError, PublishError
from orchestrator.messages import Advanced
from orchestrator.services.plans import ProgramPlans
from orchestrator.settings import Limits
from tests.integration.waiting import until
from tests.unit.walk import plan_of, work

INSERT = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, plan, wake_at, due_at, dispatches)
SELECT $1, workflow_id, 'some', false, $2, 0, 'a', true, 1, 1, 0, 0, 0, '{}', 'me', 'me', $4,
       CASE WHEN $2 <> 'running' THEN due END, due, $5
  FROM workflows, (SELECT now() - $3::int * interval '1 second' AS due) AS wanted WHERE name = 'some'
"""

CONSUMER = """
INSERT INTO consumers (consumer_id, name, queues, concurrency, seen_at, heartbeat_interval, presumed_dead_after, responsive_at)
VALUES ($1, 'vm:1', '{default}', 5, now() - interval '60 s', 1, 0.001, now())
"""
CLAIM = "UPDATE processes SET claimed_by = $2, claimed_at = now() - interval '60 s' WHERE process_id = ANY($1)"
CLAIMED = "SELECT process_id FROM processes WHERE claimed_by IS NOT NULL"


@dataclass
class Rounds:
    """A reconciler that looks at what it finds only as far as a test wants."""

    database: Database
    amqp_url: str
    breaks: set[UUID] = field(default_factory=set)
    looked: list[UUID] = field(default_factory=list)
    plan = plan_of(work("a"))

    def __post_init__(self) -> None:
        address = BrokerAddress(self.amqp_url, "test", 3)
        publisher = Publisher(address, Topology(), 5)
        self.reconciler = Reconciler(
            self.database,
            Dispatcher(publisher, Announcer(publisher, self.database.pool)),
            address,
            Limits(redispatch_after=5, step_timeout=60, state_soft_limit=1000, state_hard_limit=1000),
            ProgramPlans({"some": self.plan}),
            interval=1,
            presumed_dead_after=10,
        )

    async def look(self, _: AsyncSession, process_id: UUID, __: Limits) -> Advanced | None:
        self.looked.append(process_id)
        if process_id in self.breaks:
            raise ZeroDivisionError
        return None

    async def add(self, *, due_for: int, status: str = "failed", plan: str | None = None, dispatches: int = 0) -> UUID:
        """Add a process that has been due for so many seconds."""
        process_id = uuid4()
        fingerprint = plan or self.plan.fingerprint
        await self.database.pool.execute(INSERT, process_id, status, due_for, fingerprint, dispatches)
        return process_id

    async def dispatches(self, process_id: UUID) -> int:
        query = "SELECT dispatches FROM processes WHERE process_id = $1"
        found: int = await self.database.pool.fetchval(query, process_id)
        return found

    async def due(self) -> list[Due]:
        async with self.database.transaction() as session:
            return await find_due(session, [self.plan.fingerprint], [], at_rest=10, running=10)

    def let_wait(self, monkeypatch: pytest.MonkeyPatch, *, ready: int) -> None:
        """Let the queue of all steps have one reader, and so many messages."""

        async def read(_: Depths, queues: Iterable[str]) -> dict[str, QueueDepth]:
            return {queue: QueueDepth(queue, ready, 1) for queue in queues}

        monkeypatch.setattr(Depths, "read", read)
        monkeypatch.setattr(republisher, "queue_of", lambda *_: "default")


@pytest.fixture
async def rounds(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> Rounds:
    await database.pool.execute("INSERT INTO workflows (name, target) VALUES ('some', 'SYSTEM')")
    made = Rounds(database, amqp_url)
    monkeypatch.setattr(reconciler, "look", made.look)
    return made


async def test_a_process_that_cannot_be_looked_at_does_not_keep_the_others_from_it(rounds: Rounds) -> None:
    """A defect about one process, first in line, must not stop the rest; nor is it looked at again at once."""
    broken, healthy = await rounds.add(due_for=20), await rounds.add(due_for=10)
    rounds.breaks.add(broken)
    await rounds.reconciler.run_once()
    assert rounds.looked == [broken, healthy]
    query = "SELECT wake_at > now() FROM processes WHERE process_id = $1"
    assert await rounds.database.pool.fetchval(query, broken)


async def test_a_command_that_was_dropped_is_published_whatever_else_waits_in_its_queue(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another one the messages in the queue are taken for a sign that it waits there."""
    rounds.let_wait(monkeypatch, ready=5)
    await rounds.add(due_for=10, status="running")
    dropped = await rounds.add(due_for=10, status="running", dispatches=-2)
    await rounds.reconciler.run_once()
    assert rounds.looked == [dropped]
    assert await rounds.dispatches(dropped) == 3, "the interval goes on growing"


async def test_intervals_grow_only_for_what_was_published(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker in alarm takes nothing. When it does again, the next look must not be as far off as the alarm was long."""
    rounds.let_wait(monkeypatch, ready=0)
    lost = await rounds.add(due_for=10, status="running", dispatches=-2)

    async def look(*_: object) -> None:
        raise PublishError("alarm")

    monkeypatch.setattr(rounds.reconciler._republisher, "_look", look)
    with pytest.raises(PublishError):
        await rounds.reconciler._republisher.run_once(await rounds.due())
    assert await rounds.dispatches(lost) == 2
    query = "SELECT due_at < now() + interval '2 s' FROM processes WHERE process_id = $1"
    assert await rounds.database.pool.fetchval(query, lost)


async def test_processes_that_no_coordinator_takes_are_named(rounds: Rounds) -> None:
    rounds.reconciler._reported_at -= 31
    await rounds.add(due_for=40, plan="another")
    await rounds.add(due_for=50, plan="another", status="running")
    await rounds.add(due_for=20, plan="new")
    with capture_logs() as log:
        await rounds.reconciler.run_once()
        await rounds.reconciler.run_once()
    assert rounds.looked == []
    (line,) = [one for one in log if "no coordinator takes" in one["event"]]
    assert (line["workflow"], line["plan"], line["processes"]) == ("some", "another", 2)


async def test_lost_claims_are_released_a_few_at_a_time_and_some_that_cannot_be_keep_no_others(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds in one transaction took the coordinator a second in which new work waited. Here a code is missing for some."""
    known = [await rounds.add(due_for=-3600, status="running") for _ in range(4)]
    unknown = [await rounds.add(due_for=-3600, status="running") for _ in range(4)]
    for consumer, processes in ((UUID(int=1), unknown), (UUID(int=2), known)):
        await rounds.database.pool.execute(CONSUMER, consumer)
        await rounds.database.pool.execute(CLAIM, processes, consumer)
    released: list[UUID] = []

    async def release(session: AsyncSession, claim: LostClaim, _: Limits) -> UUID:
        process_id = claim.process.process_id
        if process_id in unknown:
            raise NotFoundError("no such workflow here")
        released.append(process_id)
        await session.execute(text("UPDATE processes SET claimed_by = NULL WHERE process_id = :id"), {"id": process_id})
        return process_id

    async def publish(_: Dispatcher, __: UUID) -> None: ...

    monkeypatch.setattr(reconciler, "CLAIMS", 3)
    monkeypatch.setattr(reconciler, "release_lost_claim", release)
    monkeypatch.setattr(Dispatcher, "try_publish", publish)

    async def releases_all() -> bool:
        before = len(released)
        await rounds.reconciler.run_once()
        assert len(released) <= before + 3
        return len(released) == len(known)

    await until(releases_all, "all claims that can be are released")
    assert sorted(released) == sorted(known)
    assert {one["process_id"] for one in await rounds.database.pool.fetch(CLAIMED)} == set(unknown)
