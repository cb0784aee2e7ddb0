"""The reconciler's rounds on a real database."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from orchestrator.broker.connection import BrokerAddress, QueueDepth
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator import reconciler
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.processes.claims import LostClaim
from orchestrator.db.session import Database
from orchestrator.errors import NotFoundError
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

    async def measure(_: set[str]) -> dict[str, QueueDepth | None]:
        return {"default": QueueDepth("default", 5, 1)}

    monkeypatch.setattr(rounds.reconciler, "_measure", measure)
    monkeypatch.setattr(reconciler, "queue_of", lambda *_: "default")
    await rounds.add(due_for=10, status="running")
    dropped = await rounds.add(due_for=10, status="running", dispatches=-2)
    await rounds.reconciler.run_once()
    assert rounds.looked == [dropped]
    query = "SELECT dispatches FROM processes WHERE process_id = $1"
    assert await rounds.database.pool.fetchval(query, dropped) == 3, "the interval goes on growing"


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
