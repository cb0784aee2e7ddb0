"""One process and programs with different plans of its workflow, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from orchestrator import registry
from orchestrator.coordinator.handlers import Handlers
from orchestrator.db.plans import list_plans
from orchestrator.db.processes.claims import Claim, Wanted, claim_many, lock_lost_claims
from orchestrator.db.processes.due import find_due
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import Database
from orchestrator.engine.plan import Plan
from orchestrator.errors import PlanMismatchError
from orchestrator.messages import Advanced, StepCommand, decode
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.reconcile import look, release_lost_claim
from orchestrator.workflow import StepList, Workflow, callback_step, retrystep, step
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.ui_client import open_ui, text_of
from tests.integration.waiting import until


@step("First")
def first() -> None:
    """Do nothing."""


@step("New")
def new() -> None:
    """Do nothing."""


@step("Last")
def last() -> None:
    """Do nothing."""


@retrystep("Patient")
def patient() -> None:
    raise ValueError("not yet")


@step("Send")
def send(callback_token: str) -> None:
    """Send a job."""


@step("Check")
def check() -> None:
    """Do nothing."""


NAME = "flow"
job = callback_step("Job", send, check, timeout=timedelta(seconds=30))


def version(*steps: object) -> Workflow:
    return Workflow(NAME, "for tests", StepList(steps))  # type: ignore[arg-type]  # steps and blocks


flow = version(first, last)
MOVED = "plan 2: + New, does not run in this process: it lies before its place"


class Versions:
    """Programs of several versions, one at a time."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = bench
        self._monkeypatch = monkeypatch

    async def deploy(self, workflow: Workflow, *, register: bool = True) -> Plan:
        """Let this process be a program with this version from here on; ``register`` its plan, as one that starts does."""
        plan = Plan.of(workflow)
        self._monkeypatch.setattr(registry._instances[NAME], "_plan", plan)
        plans = ProgramPlans({NAME: plan})
        async with self.bench.database.transaction() as session:
            await (plans.register(session, "a test") if register else plans.refresh(session))
        self.plans = plans
        self.bench.handlers = Handlers(
            self.bench.database, self.bench.publisher, self.bench.dispatcher, LIMITS, self.plans
        )
        return plan

    async def notes(self, process_id: UUID) -> list[str]:
        rows = await self.bench.database.pool.fetch(
            "SELECT note FROM process_steps WHERE process_id = $1 AND name = 'plan changed' ORDER BY sequence",
            process_id,
        )
        return [row["note"] for row in rows]

    async def due(self) -> list[UUID]:
        """Return what this program's reconciler would find."""
        async with self.bench.database.transaction() as session:
            found = await find_due(session, self.plans.fingerprints, self.plans.current, at_rest=10, running=10)
        return [one.process_id for one in found]

    async def make_due(self, process_id: UUID) -> None:
        await self.bench.database.pool.execute(
            "UPDATE processes SET due_at = now(), wake_at = CASE WHEN status <> 'running' THEN now() END"
            " WHERE process_id = $1",
            process_id,
        )


@pytest.fixture
async def versions(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Versions]:
    """Provide a bench whose program changes its version."""
    async with bench_of(database, amqp_url, monkeypatch, __name__, flow) as bench:
        yield Versions(bench, monkeypatch)


async def test_a_consumer_that_has_the_registered_plan_moves_a_process_and_does_not_run_it(versions: Versions) -> None:
    bench = versions.bench
    await versions.deploy(version(last))
    process_id = await bench.start(NAME)
    plan = await versions.deploy(version(new, last))
    runner = await bench.runner()

    await runner.take(await bench.command(process_id))

    row = await bench.row(process_id)
    assert (row["plan"], row["position"], row["attempt"]) == (plan.fingerprint, 1, 0)
    assert await versions.notes(process_id) == [MOVED]
    await bench.run_step(process_id, runner, "completed")


async def test_a_claim_wants_the_plan_of_the_process_and_without_one_the_registered_plan(versions: Versions) -> None:
    """Issue 9.1: rows that an older engine has stored have no plan."""
    bench = versions.bench
    old = await versions.deploy(version(first, last))
    process_id, none = await bench.start(NAME), await bench.start(NAME)
    await bench.database.pool.execute("UPDATE processes SET plan = NULL WHERE process_id = $1", none)
    other = await versions.deploy(version(first, new, last))
    await bench.runner()

    async def claim(one: UUID, plan: Plan) -> Claim | None:
        command = decode(StepCommand, (await bench.command(one)).body)
        heartbeat = bench.heartbeat
        async with bench.database.pool.acquire() as connection:
            wanted = [Wanted(command, plan.fingerprint)]
            (found,) = await claim_many(connection, wanted, consumer_id=heartbeat.consumer_id, consumer=heartbeat.name)
        return found

    assert [await claim(process_id, other), await claim(none, old)] == [None, None]
    assert await claim(process_id, old) is not None
    assert await claim(none, other) is not None


async def test_a_row_without_a_plan_is_taken_over_without_an_entry(versions: Versions) -> None:
    bench = versions.bench
    await versions.deploy(version(first, last))
    process_id = await bench.start(NAME)
    await bench.database.pool.execute("UPDATE processes SET plan = NULL")
    plan = await versions.deploy(version(first, new, last))

    runner = await bench.runner()
    await runner.take(await bench.command(process_id))
    await until(lambda: runner.running == 0, "the step has ended")

    assert (await bench.row(process_id))["plan"] == plan.fingerprint
    assert await versions.notes(process_id) == []


async def park(versions: Versions) -> tuple[UUID, str]:
    """Let a process wait for its callback in the old plan; return it with its token."""
    bench = versions.bench
    await versions.deploy(version(job, last))
    process_id = await bench.start(NAME)
    token = str(await bench.database.pool.fetchval("SELECT token FROM callbacks WHERE process_id = $1", process_id))
    await bench.run_step(process_id, await bench.runner(), "awaiting_callback")
    return process_id, token


async def answer(bench: Bench, token: str) -> None:
    await bench.handlers.take_callback(delivery("callback.completed", b'{"vlan": 7}', token=token))


async def test_an_answer_finds_its_step_where_the_new_plan_has_it(versions: Versions) -> None:
    process_id, token = await park(versions)
    await versions.deploy(version(new, job, last))

    await answer(versions.bench, token)

    row = await versions.bench.row(process_id)
    assert (row["status"], row["step"], row["position"]) == ("running", "Check", 3)
    assert await versions.notes(process_id) == [MOVED]
    assert await versions.bench.database.pool.fetchval("SELECT status FROM callbacks") == "used"


async def test_an_answer_to_a_program_with_an_older_plan_is_kept_for_one_that_has_the_right_one(
    versions: Versions,
) -> None:
    process_id, token = await park(versions)
    bench = versions.bench
    await versions.deploy(version(job, new, last))
    async with bench.database.transaction() as session:
        assert await look(session, process_id, LIMITS) is not None, "nothing is due, so it is not moved"
    assert await versions.notes(process_id) == []
    await versions.deploy(version(first, job, last), register=False)

    await answer(bench, token)
    assert (await bench.row(process_id))["status"] == "awaiting_callback"
    assert await versions.due() == [], "it may not touch it, and leaves it due for others"

    await versions.deploy(version(job, new, last))
    assert await versions.due() == [process_id]
    async with bench.database.transaction() as session:
        await look(session, process_id, LIMITS)
    assert (await bench.row(process_id))["step"] == "Check"


async def test_an_answer_on_the_page_of_a_program_with_an_older_plan_is_refused_and_its_token_can_be_used_again(
    versions: Versions, database: Database
) -> None:
    process_id, token = await park(versions)
    await versions.deploy(version(job, new, last))
    await versions.deploy(version(first, job, last), register=False)
    path, sent = f"/ui/processes/{process_id}/callback", {"token": token, "outcome": "completed"}
    async with open_ui(database) as browser:
        refused = await browser.post(path, sent)
        assert (refused.status_code, "the registered one is plan 2" in text_of(refused)) == (409, True)
        assert (await versions.bench.row(process_id))["status"] == "awaiting_callback"
        assert await database.pool.fetchval("SELECT outcome FROM callbacks") is None, "nothing is kept of it"
        await versions.deploy(version(job, new, last))
        assert (await browser.post(path, sent)).status_code == 303
        assert "answered by anonymous on the page" in text_of(await browser.get(f"/ui/processes/{process_id}"))
    assert (await versions.bench.row(process_id))["step"] == "Check"


async def test_a_deadline_passes_whatever_the_plan_is(versions: Versions) -> None:
    process_id, _ = await park(versions)
    bench = versions.bench
    await versions.deploy(version(new, job, last))
    await bench.database.pool.execute("UPDATE callbacks SET deadline = now() - interval '1 second'")

    async with bench.database.transaction() as session:
        await look(session, process_id, LIMITS)

    assert "CallbackTimeoutError" in await bench.failure(process_id)
    assert await versions.notes(process_id) == [MOVED]


async def test_a_step_that_waits_is_tried_again_by_a_program_that_may_and_left_due_by_others(
    versions: Versions,
) -> None:
    bench = versions.bench
    await versions.deploy(version(patient, last))
    process_id = await bench.start(NAME)
    await bench.run_step(process_id, await bench.runner(), "waiting")
    await versions.deploy(version(new, patient, last))
    await versions.deploy(version(first, patient, last), register=False)
    await versions.make_due(process_id)
    assert await versions.due() == []

    await versions.deploy(version(new, patient, last))
    assert await versions.due() == [process_id]
    async with bench.database.transaction() as session:
        message = await look(session, process_id, LIMITS)

    assert message is not None
    assert message.next is not None
    assert message.next.position == 1
    row = await bench.row(process_id)
    assert (row["status"], row["position"]) == ("running", 1)
    assert row["due_at"] is not None
    assert await versions.notes(process_id) == [MOVED]


async def test_a_lost_claim_is_given_back_by_a_program_that_may(versions: Versions) -> None:
    bench = versions.bench
    await versions.deploy(version(last))
    process_id = await bench.start(NAME)
    await bench.database.pool.execute(
        "UPDATE processes SET attempt = 1, claimed_by = $1, claimed_at = now() - interval '1 hour'", uuid4()
    )
    await versions.deploy(version(new, last))

    async def release() -> None:
        async with bench.database.transaction() as session:
            (claim,) = await lock_lost_claims(session, reads_for=3600, presumed_dead_after=10, limit=10)
            await release_lost_claim(session, claim, LIMITS)

    await versions.deploy(version(first, last), register=False)
    with pytest.raises(
        PlanMismatchError, match=r"has plan 1 of .* has the unregistered plan .* the registered one is plan 2"
    ):
        await release()
    assert (await bench.row(process_id))["claimed_by"] is not None

    await versions.deploy(version(new, last))
    await release()
    row = await bench.row(process_id)
    assert (row["claimed_by"], row["position"]) == (None, 1)
    assert await versions.notes(process_id) == [MOVED]


async def test_what_follows_a_result_of_another_plan_is_published_as_it_stands_or_after_a_move(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result of the program's own plan needs no database, and one that it may not judge is published as it stands."""
    bench = versions.bench
    await versions.deploy(version(first, last))
    process_id = await bench.start(NAME)
    async with bench.database.transaction() as session:
        process = await load_process(session, process_id)
        result = await look(session, process_id, LIMITS)
    assert result is not None
    looked: list[str] = []
    publish = bench.dispatcher.publish

    async def record(message: Advanced, *, is_repeated: bool = False) -> None:
        looked.append(str(message.plan))
        await publish(message, is_repeated=is_repeated)

    monkeypatch.setattr(bench.dispatcher, "publish", record)
    taken = delivery("result", result.model_dump_json().encode(), kind="step.result")
    await versions.deploy(version(new, last))
    plan = await versions.deploy(version(first, new, last))
    await versions.deploy(version(new, last), register=False)
    await bench.handlers.take_result(taken)
    await versions.deploy(version(first, new, last))
    await bench.handlers.take_result(taken)

    assert looked == [process.plan, plan.fingerprint]
    assert await versions.notes(process_id) == ["plan 3: + New, runs"]


async def test_programs_that_start_at_the_same_time_register_each_plan_once(versions: Versions) -> None:
    database = versions.bench.database
    flows = [version(first, last), version(first, new, last), version(new, last)]

    async def register(workflow: Workflow) -> None:
        async with database.transaction() as session:
            await ProgramPlans({NAME: Plan.of(workflow)}).register(session, "a test")

    await asyncio.gather(*(register(one) for one in flows * 3))

    async with database.transaction() as session:
        found = await list_plans(session, NAME)
    assert [one.number for one in found] == [3, 2, 1]
    assert {one.fingerprint for one in found} == {Plan.of(one).fingerprint for one in flows}
    assert [one.is_registered for one in found] == [True, False, False]
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.pool.execute("UPDATE workflow_plans SET number = 9")


async def test_a_start_with_a_plan_that_nobody_has_registered_is_refused(versions: Versions) -> None:
    """Issue 9.1: a command line with other code than the programs must not bring a plan of its own."""
    await versions.deploy(version(first, last))
    await versions.deploy(version(first, new, last), register=False)

    with pytest.raises(PlanMismatchError, match="no coordinator or consumer has registered"):
        await versions.bench.start(NAME)
