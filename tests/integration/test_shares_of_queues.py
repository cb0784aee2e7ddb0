"""A consumer that reads several queues: what the steps of one hold is never all there is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from consumers import program
from consumers.program import run_consumer
from orchestrator import shares
from orchestrator.coordinator.program import run_coordinator
from orchestrator.db.session import Database
from orchestrator.services.start import StartRequest, start
from orchestrator.settings import Settings
from orchestrator.shares import working_for
from orchestrator.workflow import StepList, done, init, step, workflow
from orchestrator.workflows.utils import task
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.waiting import until

TASKS = 8


class Gate:
    """Where the steps of tasks wait; it counts who is there."""

    def __init__(self) -> None:
        self.waiting = 0
        self._opened = threading.Event()
        self._opened_here = asyncio.Event()

    def open(self) -> None:
        self._opened.set()
        self._opened_here.set()

    async def pass_through(self) -> None:
        self.waiting += 1
        await self._opened_here.wait()

    def pass_through_in_a_thread(self) -> None:
        self.waiting += 1
        self._opened.wait()


gates: list[Gate] = []


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    made = Gate()
    gates.append(made)
    yield made
    made.open()
    gates.remove(made)


@step("Hold a slot")
async def hold_slot() -> None:
    await gates[-1].pass_through()


@task("Holds a slot")
def holds_slot() -> StepList:
    return StepList([hold_slot])


@step("Hold a session")
async def hold_session(session: AsyncSession) -> None:
    await session.execute(text("SELECT 1"))
    await gates[-1].pass_through()


@task("Holds a session")
def holds_session() -> StepList:
    return StepList([hold_session])


@step("Hold a thread")
def hold_thread() -> None:
    gates[-1].pass_through_in_a_thread()


@task("Holds a thread")
def holds_thread() -> StepList:
    return StepList([hold_thread])


@step("Read")
async def read(session: AsyncSession) -> dict[str, int]:
    return {"read": (await session.execute(text("SELECT 1"))).scalar_one()}


@step("Think")
def think(read: int) -> dict[str, int]:
    return {"thought": read + 1}


@workflow("Uses a slot, a session and a thread")
def uses_all() -> StepList:
    return init >> read >> think >> done


@asynccontextmanager
async def programs(settings: Settings, concurrency: int) -> AsyncIterator[None]:
    """Run a coordinator and one consumer that reads both queues."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run_coordinator(settings, stopping))
        tasks.create_task(run_consumer(settings, stopping, concurrency=concurrency))
        try:
            yield
        finally:
            for one in gates:
                one.open()
            stopping.set()


async def begin(bench: Bench, workflow: str) -> UUID:
    async with bench.database.transaction() as session:
        outcome = await start(session, StartRequest(workflow), LIMITS)
    assert outcome.message is not None
    await bench.dispatcher.publish(outcome.message)
    return outcome.process_id


async def completed(bench: Bench, *processes: UUID) -> None:
    async def are_completed() -> bool:
        return {(await bench.row(one))["status"] for one in processes} == {"completed"}

    await until(are_completed, "the processes are completed")


@pytest.mark.parametrize(
    ("holding", "held", "concurrency"),
    [("holds_slot", 3, 4), ("holds_session", 3, 100), ("holds_thread", 2, 100)],
    ids=["slots", "connections", "threads"],
)
async def test_a_workflow_goes_on_while_tasks_hold_all_that_they_may(
    database: Database,
    database_url: str,
    amqp_url: str,
    monkeypatch: pytest.MonkeyPatch,
    gate: Gate,
    holding: str,
    held: int,
    concurrency: int,
) -> None:
    """B16: tasks that hold sessions took all connections of a consumer, and slow ones all its slots, and all its threads."""
    settings = Settings(  # the others have defaults
        database_url=database_url, amqp_url=amqp_url, queue_type="classic", database_pool_size=4, step_threads=2
    )
    async with (
        bench_of(database, amqp_url, monkeypatch, __name__, holds_slot, holds_session, holds_thread, uses_all) as bench,
        programs(settings, concurrency),
    ):
        tasks = [await begin(bench, holding) for _ in range(TASKS)]
        await until(lambda: gate.waiting == held, f"{held} tasks wait at the gate")
        await completed(bench, await begin(bench, "uses_all"), await begin(bench, "uses_all"))
        assert gate.waiting == held
        gate.open()
        await completed(bench, *tasks)


async def test_claimed_tasks_take_connections_in_turns_once_a_workflow_runs(
    database: Database, database_url: str, amqp_url: str, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """They are claimed while nothing else goes on. After the first of them nothing of ``tasks`` has a turn here."""
    monkeypatch.setattr(shares, "LONGEST_REST", 3600)
    monkeypatch.setattr(program, "Pace", partial(shares.Pace, rest=1e9, recently=3600))
    settings = Settings(  # the others have defaults
        database_url=database_url, amqp_url=amqp_url, queue_type="classic", database_pool_size=4
    )
    async with bench_of(database, amqp_url, monkeypatch, __name__, holds_session, uses_all) as bench:
        async with programs(settings, 100):
            for _ in range(TASKS):
                await begin(bench, "holds_session")
            claimed = "SELECT count(*) = $1 FROM processes WHERE claimed_by IS NOT NULL"
            await until(lambda: database.pool.fetchval(claimed, TASKS), "all tasks are claimed")
            await until(lambda: gate.waiting == 3, "three of them have a connection")
            await completed(bench, await begin(bench, "uses_all"))
            gate.open()
            ended = "SELECT count(*) = 3 FROM processes WHERE workflow = 'holds_session' AND status = 'completed'"
            await until(lambda: database.pool.fetchval(ended), "those three are completed")
            await completed(bench, await begin(bench, "uses_all"))
            assert gate.waiting == 3
        assert gate.waiting == TASKS, "a consumer that stops lets them end"


@pytest.fixture
async def shared(database_url: str) -> AsyncIterator[Database]:
    """Four connections that two queues share."""
    own = Database(database_url, pool_size=4, connect_timeout=60, application_name="a consumer")
    own.share(["default", "tasks"])
    yield own
    await own.close()


async def hold_connection(database: Database, queue: str | None, gate: Gate) -> None:
    working_for.set(queue)
    async with database.transaction() as session:
        await session.execute(text("SELECT 1"))
        await gate.pass_through()


async def test_a_queue_finds_its_connections_again_whatever_became_of_them(shared: Database, gate: Gate) -> None:
    """A connection that dies, is cut off, or whose taker is cancelled comes back to the share that it was taken from."""
    working_for.set("tasks")
    for _ in range(5):
        async with shared.engine.connect() as connection:
            await connection.invalidate()
        async with shared.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            driver.terminate()
    await shared.engine.dispose()
    async with asyncio.TaskGroup() as tasks:
        holding = [tasks.create_task(hold_connection(shared, "tasks", gate)) for _ in range(6)]
        await until(lambda: gate.waiting == 3, "three tasks have a connection")
        for one in holding[3:]:
            one.cancel()
        holding = [tasks.create_task(hold_connection(shared, "tasks", gate)) for _ in range(2)]
        tasks.create_task(hold_connection(shared, "default", gate))
        await until(lambda: gate.waiting == 4, "the other queue has the last one")
        gate.open()


async def test_the_engine_itself_finds_any_free_connection(shared: Database, gate: Gate) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(hold_connection(shared, "tasks", gate))
        await until(lambda: gate.waiting == 3, "three tasks have a connection")
        async with shared.transaction() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        gate.open()
