"""A consumer's runner on real servers, without its program; and the coordinator's receiver, for what reaches it meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from consumers.finish import Finisher
from consumers.heartbeat import Heartbeat
from consumers.metrics import Metrics
from consumers.runner import Runner
from orchestrator import registry
from orchestrator.broker.connection import BrokerAddress
from orchestrator.broker.deliveries import Delivery
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.coordinator.dispatcher import Dispatcher
from orchestrator.coordinator.receive import Receiver
from orchestrator.db.session import Database
from orchestrator.db.step_session import install_guards
from orchestrator.messages import MessageType, ResumeProcess, StepCommand, encode
from orchestrator.services.execute import StepLimits
from orchestrator.services.start import StartLimits, StartRequest, start
from orchestrator.workflow import Workflow
from tests.integration.step_sessions import until

LIMITS = StartLimits(5, 64_000, 1_000_000)


class RunnerBench:
    """Starts processes and runs their steps here."""

    def __init__(self, database: Database, amqp_url: str) -> None:
        self.database = database
        self.address = BrokerAddress(amqp_url, "test", 3)
        self.publisher = Publisher(self.address, Topology.of("classic"), 5)
        self.receiver = Receiver(database, self.publisher, Dispatcher(self.publisher, database.pool), LIMITS)
        self.threads = ThreadPoolExecutor(1)

    async def start(self, workflow: str) -> UUID:
        async with self.database.transaction() as session:
            return (await start(session, StartRequest(workflow), LIMITS)).process_id

    async def runner(
        self, *, publisher: Publisher | None = None, presumed_dead_after: float = 10, interval: float = 2
    ) -> Runner:
        install_guards(self.database.engine)
        self.heartbeat = Heartbeat(self.database.pool, ["default"], 100, interval=interval, timeout=presumed_dead_after)
        await self.heartbeat.register()
        finisher = Finisher(
            self.database, publisher or self.publisher, Metrics(), redispatch_after=5, max_lost_attempts=5
        )
        limits = StepLimits(60, 64_000, 1_000_000)
        return Runner(
            self.database,
            finisher,
            self.heartbeat,
            limits,
            self.threads,
            concurrency=100,
            max_lost_attempts=5,
            probation_time=10,
        )

    async def run(self, workflow: str, runner: Runner | None = None) -> UUID:
        """Start a process and let its first step end."""
        runner = runner or await self.runner()
        process_id = await self.start(workflow)
        await runner.take(await self.command(process_id))
        await until(lambda: runner.running == 0, "the attempt has ended")
        return process_id

    async def command(self, process_id: UUID) -> Delivery:
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
        return _delivery("default", encode(command), kind=MessageType.STEP_COMMAND)

    def resume(self, process_id: UUID) -> Delivery:
        body = encode(ResumeProcess(process_id=process_id, inputs=[], user="me"))
        return _delivery("process.resume", body, message_id=uuid4().hex)

    async def row(self, process_id: UUID) -> Any:
        return await self.database.pool.fetchrow("SELECT * FROM processes WHERE process_id = $1", process_id)

    async def failure(self, process_id: UUID, status: str = "failed") -> str:
        """The only failure in a process's log, as JSON."""
        assert (await self.row(process_id))["status"] == status
        (found,) = await self.database.pool.fetch(
            "SELECT failure::text FROM process_steps WHERE process_id = $1 AND failure IS NOT NULL", process_id
        )
        return str(found["failure"])


@asynccontextmanager
async def runner_bench(
    database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch, module: str, *workflows: Workflow
) -> AsyncIterator[RunnerBench]:
    """A bench that knows the workflows of a test's module."""
    monkeypatch.setattr(registry, "_instances", {})
    for one in workflows:
        registry.LazyWorkflowInstance(module, one.name)
        await database.pool.execute("INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM')", one.name)
    made = RunnerBench(database, amqp_url)
    await made.publisher.open()
    yield made
    await made.publisher.close()
    made.threads.shutdown()


def _delivery(key: str, body: bytes, *, kind: str | None = None, message_id: str | None = None) -> Delivery:
    return Delivery("q", body, kind, key, message_id, None, None, redelivered=False)
