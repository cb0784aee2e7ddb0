"""A coordinator's handlers and a consumer's runner on real servers, without their programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from consumers.completion import Completion
from consumers.hand_back import HandBack
from consumers.heartbeat import Heartbeat
from consumers.isolation import Isolation
from consumers.metrics import Metrics
from consumers.run_ahead import Budget
from consumers.runner import Runner, make_claims
from consumers.threads import StepThreads
from orchestrator import registry
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator.announcer import Announcer
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.handlers import Handlers
from orchestrator.coordinator.reconciler import Reconciler
from orchestrator.db.session import Database
from orchestrator.messages import MessageType, ResumeProcess, StepCommand, encode
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartRequest, start
from orchestrator.settings import Limits
from orchestrator.shares import Pace, Shares
from orchestrator.watchdog import LoopWatch
from orchestrator.workflow import Workflow
from tests.integration.waiting import until

LIMITS = Limits(redispatch_after=5, step_timeout=60, state_soft_limit=64_000, state_hard_limit=1_000_000)


def delivery(routing_key: str, body: bytes, *, kind: str | None = None, token: str | None = None) -> Delivery:
    """Return a message as a handler sees it."""
    return Delivery("a queue", body, kind, routing_key, None, token, None, redelivered=False)


class Bench:
    """Starts processes, answers for them, and takes their steps when it is told to."""

    def __init__(self, database: Database, amqp_url: str) -> None:
        self.database = database
        self.address = BrokerAddress(amqp_url, "test", 30)
        self.publisher = Publisher(self.address, Topology.of("classic"), 5)
        self.announcer = Announcer(self.publisher, database.pool)
        self.dispatcher = Dispatcher(self.publisher, self.announcer)
        self.handlers = Handlers(database, self.publisher, self.dispatcher, LIMITS, ProgramPlans.load())
        self.metrics = Metrics()
        self.threads = StepThreads(1)  # makes its thread when a plain step comes

    async def start(self, workflow: str) -> UUID:
        """Start a process; nothing is published."""
        async with self.database.transaction() as session:
            return (await start(session, StartRequest(workflow), LIMITS)).process_id

    async def runner(
        self,
        *,
        publisher: Publisher | None = None,
        database: Database | None = None,
        presumed_dead_after: float = 10,
        interval: float = 2,
        suspects: int = 100,
        run_ahead: int = 0,
        seconds: float = 60,
        slots: int = 100,
    ) -> Runner:
        """Return a consumer's, with a heartbeat that was recorded once."""
        self.heartbeat = Heartbeat(
            self.database,
            ["default"],
            100,
            registry.find_abilities(),
            LoopWatch(asyncio.get_running_loop()),
            interval=interval,
            presumed_dead_after=presumed_dead_after,
        )
        await self.heartbeat.register()
        used = database or self.database
        used.share(["default"])
        pace = Pace()
        completion = Completion(
            used,
            publisher or self.publisher,
            self.metrics,
            pace,
            redispatch_after=LIMITS.redispatch_after,
            max_lost_attempts=5,
        )
        claims = make_claims(used, self.heartbeat)
        isolation = Isolation(
            used, completion, Metrics(), claims, pool_size=5, places=Shares(suspects, ["default"]), dangerous_for=10
        )
        return Runner(
            used,
            completion,
            self.heartbeat,
            HandBack(used.pool, publisher or self.publisher, self.heartbeat.consumer_id, stopping=asyncio.Event()),
            claims,
            isolation,
            LIMITS,
            self.threads,
            Shares(slots, ["default"]),
            pace,
            Budget(run_ahead, seconds),
        )

    def reconciler(self) -> Reconciler:
        """One that looks when it is told to."""
        return Reconciler(
            self.database,
            self.dispatcher,
            self.address,
            LIMITS,
            ProgramPlans.load(),
            interval=1,
            presumed_dead_after=10,
        )

    async def row(self, process_id: UUID) -> asyncpg.Record:
        """Return a process as it is stored."""
        row = await self.database.pool.fetchrow("SELECT * FROM processes WHERE process_id = $1", process_id)
        assert row is not None
        return row

    async def command(self, process_id: UUID) -> Delivery:
        """Return the command for the step at which a process stands."""
        row = await self.row(process_id)
        command = StepCommand(
            process_id=process_id,
            workflow=row["workflow"],
            step=row["step"],
            position=row["position"],
            attempt=row["attempt"],
            announced=row["sequence"],
            lost=row["lost"],
        )
        return delivery("default", encode(command), kind=MessageType.STEP_COMMAND)

    async def run_step(self, process_id: UUID, runner: Runner, status: str) -> None:
        """Run steps until a process has a status and the runner rests."""
        await runner.take(await self.command(process_id))

        async def rests() -> bool:
            return runner.running == 0 and (await self.row(process_id))["status"] == status

        await until(rests, f"the process is {status}")

    async def run(self, workflow: str, runner: Runner | None = None) -> UUID:
        """Start a process and let its first step end."""
        runner = runner or await self.runner()
        process_id = await self.start(workflow)
        await runner.take(await self.command(process_id))
        await until(lambda: runner.running == 0, "the attempt has ended")
        return process_id

    async def failure(self, process_id: UUID, status: str = "failed") -> str:
        """Return the only failure in a process's log, as JSON."""
        assert (await self.row(process_id))["status"] == status
        (found,) = await self.database.pool.fetch(
            "SELECT failure::text FROM process_steps WHERE process_id = $1 AND failure IS NOT NULL", process_id
        )
        return str(found["failure"])


def resume(process_id: UUID, *pages: dict[str, Any]) -> Delivery:
    """Return the message that gives a process its input, or tries it again."""
    body = encode(ResumeProcess(process_id=process_id, inputs=list(pages), user="me"))
    return replace(delivery("process.resume", body), message_id=str(uuid4()))


@asynccontextmanager
async def bench_of(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, module: str, *workflows: Workflow
) -> AsyncIterator[Bench]:
    """Provide a bench that knows these workflows of a test's module, and whose publisher is open."""
    monkeypatch.setattr(registry, "_instances", {})
    for one in workflows:
        registry.LazyWorkflowInstance(module, one.name)
        await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", one.name)
    bench = Bench(database, amqp_url)
    await bench.publisher.open()
    try:
        yield bench
    finally:
        await bench.publisher.close()
        bench.threads.shutdown()
