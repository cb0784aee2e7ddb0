"""A step starts many processes in its commit: with the step, or not at all, and once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer
from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import read_request
from orchestrator.db.processes.detail import read_detail
from orchestrator.db.session import Database
from orchestrator.errors import DefinitionError, ProcessFailureError, PublishError
from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.services.children import Items
from orchestrator.services.pause import set_paused
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.steps import start_processes
from orchestrator.workflows.utils import task, validate_workflow
from tests.integration.engine_bench import Bench, bench_of, resume
from tests.integration.subscription_rows import Rows
from tests.integration.waiting import until


@dataclass
class Wanted:
    """What the parent's step does."""

    workflow: str = "child"
    items: Items = ()
    fails: bool = False
    again: bool = False
    reached: asyncio.Event | None = None
    gate: asyncio.Event | None = None


WANTED = Wanted()


class NumberPage(FormPage):
    number: int


async def number_form(session: AsyncSession) -> AsyncFormGenerator:
    page = yield NumberPage
    assert isinstance(page, NumberPage)
    if page.number == 13:
        await session.execute(text("SELECT 1 / 0"))
    if page.number == 14:
        raise KeyError("no such number")
    yield {"number": page.number}


@step("Note the number")
async def note_number(number: int) -> State:
    return {"noted": number}


@task("Notes a number", initial_input_form=number_form)
def child() -> StepList:
    return begin >> note_number


@validate_workflow("Compares a subscription")
def validate_thing() -> StepList:
    return begin


@step("Nothing")
async def nothing() -> None:
    """Do nothing."""


async def one_at_a_time(session: AsyncSession, workflow: str) -> bool | str:
    found = await session.scalar(
        text("SELECT count(*) FROM processes WHERE workflow = :workflow"), {"workflow": workflow}
    )
    return True if found == 0 else "one is enough"


@task("Runs once", run_predicate=one_at_a_time)
def lonely() -> StepList:
    return begin >> nothing


async def nobody(user: str) -> bool:
    return user == "boss"


@task("For the boss", authorize_callback=nobody)
def reserved() -> StepList:
    return begin >> nothing


@step("Start them")
async def start_them(session: AsyncSession) -> State:
    if WANTED.gate is not None and WANTED.reached is not None:
        WANTED.reached.set()
        await WANTED.gate.wait()
    result = await start_processes(session, WANTED.workflow, WANTED.items)
    if WANTED.again:
        result = await start_processes(session, WANTED.workflow, WANTED.items)
    if WANTED.fails:
        raise ProcessFailureError("on second thoughts")
    return {"result": result}


@task("Starts many")
def starts_many() -> StepList:
    return begin >> start_them


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    workflows = (starts_many, child, validate_thing, lonely, reserved)
    async with bench_of(database, amqp_url, monkeypatch, __name__, *workflows) as made:
        await database.pool.execute("UPDATE workflows SET is_task = true")
        await database.pool.execute("UPDATE workflows SET target = 'VALIDATE' WHERE name = 'validate_thing'")
        for name, value in vars(Wanted()).items():
            setattr(WANTED, name, value)
        yield made


async def start_children(bench: Bench, workflow: str, items: Items) -> tuple[UUID, dict[str, Any]]:
    """Run the parent's step, and return the parent and what it has in its state."""
    WANTED.workflow, WANTED.items = workflow, items
    parent = await bench.run("starts_many")
    row = await bench.row(parent)
    assert row["status"] == "completed", await bench.failure(parent)
    return parent, json.loads(row["state"])["result"]


async def children(bench: Bench) -> list[asyncpg.Record]:
    return await bench.database.pool.fetch(
        "SELECT * FROM processes WHERE parent_id IS NOT NULL ORDER BY state ->> 'number'"
    )


def numbers(*wanted: int) -> list[list[State]]:
    return [[{"number": one}] for one in wanted]


async def queued(bench: Bench) -> list[str]:
    """Return the ids in the commands that wait in the queue of tasks."""
    connection = await aio_pika.connect(bench.address.url)
    async with connection:
        queue = await (await connection.channel()).get_queue("orchestrator.steps.tasks")
        found = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(json.loads(message.body)["process_id"])
        return found


async def test_children_are_started_with_the_step_by_the_parents_user(bench: Bench) -> None:
    parent, result = await start_children(bench, "child", numbers(1, 2, 3))
    assert result == {"started": 3, "already_there": 0, "refused": {}, "examples": {}}
    found = await children(bench)
    assert [
        (one["parent_id"], one["started_by"], one["status"], json.loads(one["state"])["number"]) for one in found
    ] == [(parent, "SYSTEM", "running", number) for number in (1, 2, 3)]
    notes = await bench.database.pool.fetch("SELECT DISTINCT note FROM process_steps WHERE note LIKE 'by the step%'")
    assert [one["note"] for one in notes] == [f"by the step 'Start them' of process {parent}"]


async def test_without_the_steps_commit_there_is_no_child_and_the_retry_starts_each_once(bench: Bench) -> None:
    """The first attempt has stored all of them when it fails."""
    WANTED.items, WANTED.fails = numbers(*range(100, 700)), True
    runner = await bench.runner()
    parent = await bench.run("starts_many", runner)
    assert "on second thoughts" in await bench.failure(parent)
    assert await children(bench) == []
    WANTED.fails = False
    await bench.handlers.take_command(resume(parent))
    await bench.run_step(parent, runner, "completed")
    assert len(await children(bench)) == 600


async def test_a_step_that_is_repeated_starts_only_what_is_missing(bench: Bench) -> None:
    """As after a rewind; and whatever comes twice in one call is started once."""
    WANTED.again = True
    _, result = await start_children(bench, "child", numbers(1, 2, 2, 3))
    assert (result["started"], result["already_there"]) == (0, 4), "what the second call says"
    assert len(await children(bench)) == 3


async def test_keys_stand_for_processes_whatever_their_pages(bench: Bench) -> None:
    one = [{"number": 1}]
    _, result = await start_children(bench, "child", {"a": one, "b": one})
    assert result["started"] == 2
    _, result = await start_children(bench, "child", {"a": one})
    assert result["started"] == 1, "another parent's keys are its own"


async def test_what_is_refused_is_counted_by_reason_and_does_not_stop_the_others(bench: Bench) -> None:
    """Without its savepoint one of the forms would have aborted the transaction."""
    wrong: list[Any] = [[{"number": "x"}], [], [{"number": 13}], [{"number": 14}], [{"number": float("nan")}], "abc"]
    _, result = await start_children(bench, "child", [*numbers(1), *wrong, *numbers(2)])
    assert (result["started"], len(await children(bench))) == (2, 2)
    assert result["refused"] == {"form.invalid": 3, "form.incomplete": 1, "DefinitionError": 2}
    assert result["examples"]["DefinitionError"].startswith("the form of 'child' raised")


async def test_a_subscription_that_has_ended_meanwhile_does_not_stop_the_others(bench: Bench) -> None:
    rows = Rows(bench.database.pool)
    product = await rows.product("P")
    await bench.database.pool.execute(
        "INSERT INTO products_workflows SELECT $1, workflow_id, target FROM workflows WHERE name = 'validate_thing'",
        product,
    )
    active, locked = await rows.subscription(product), await rows.subscription(product, insync=False)
    ended = await rows.subscription(product, status="terminated")
    pages = [[{"subscription_id": one}] for one in (active, locked, ended, uuid4())]
    _, result = await start_children(bench, "validate_thing", pages)
    assert result["started"] == 2, "validations may run on what is locked"
    assert result["refused"] == {"subscription.no_modify_invalid_status": 1, "not_found": 1}
    linked = await bench.database.pool.fetch("SELECT subscription_id FROM processes_subscriptions")
    assert {one["subscription_id"] for one in linked} == {active, locked}


async def test_a_run_predicate_sees_the_children_that_were_started_before(bench: Bench) -> None:
    _, result = await start_children(bench, "lonely", {"a": [], "b": [], "c": []})
    assert (result["started"], result["refused"]) == (1, {"workflow.predicate_failed": 2})
    assert "one is enough" in result["examples"]["workflow.predicate_failed"]


@pytest.mark.parametrize(
    ("workflow", "words"),
    [("reserved", "'SYSTEM' may not start the workflow 'reserved'"), ("unknown", "there is no workflow 'unknown'")],
)
async def test_what_holds_for_all_children_fails_the_step(bench: Bench, workflow: str, words: str) -> None:
    WANTED.workflow, WANTED.items = workflow, [[]]
    assert words in await bench.failure(await bench.run("starts_many"))
    assert await children(bench) == []


async def test_only_a_step_starts_children(bench: Bench) -> None:
    async with bench.database.transaction() as session:
        with pytest.raises(DefinitionError, match="give it the session that the step gets"):
            await start_processes(session, "child", numbers(1))


async def test_the_statements_grow_with_the_batches_not_with_the_children(bench: Bench) -> None:
    seen: list[str] = []
    event.listen(bench.database.engine.sync_engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    await start_children(bench, "child", numbers(*range(1000, 2000)))
    assert len(await children(bench)) == 1000
    assert len(seen) < 50


async def test_children_are_published_in_the_next_round_each_once_whatever_waits_in_the_queue(bench: Bench) -> None:
    """By two coordinators at the same time."""
    _, result = await start_children(bench, "child", numbers(*range(100, 400)))
    assert result["started"] == 300
    both = [bench.reconciler(), bench.reconciler()]
    for _ in range(4):
        await asyncio.gather(*(one.run_once() for one in both))
    commands = await queued(bench)
    assert sorted(commands) == sorted(str(one["process_id"]) for one in await children(bench))
    assert {one["dispatches"] for one in await children(bench)} == {1}


async def test_what_the_broker_does_not_take_is_published_when_it_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start_children(bench, "child", numbers(*range(100, 300)))
    reconciler, publish, taken = bench.reconciler(), bench.publisher.publish, 0

    async def publish_some(message: Outgoing) -> Answer:
        nonlocal taken
        taken += 1
        if taken > 60:
            raise PublishError("the broker is blocked")
        return await publish(message)

    monkeypatch.setattr(bench.publisher, "publish", publish_some)
    with pytest.raises(PublishError):
        await reconciler.run_once()
    monkeypatch.setattr(bench.publisher, "publish", publish)
    await bench.database.pool.execute("UPDATE processes SET due_at = now() WHERE dispatches = -1")  # the lease ends
    for _ in range(3):
        await reconciler.run_once()
    commands = await queued(bench)
    assert sorted(commands) == sorted(str(one["process_id"]) for one in await children(bench))


async def test_children_that_are_started_while_the_engine_is_paused_wait_until_it_is_unpaused(bench: Bench) -> None:
    runner, parent = await bench.runner(), await bench.start("starts_many")
    WANTED.items, WANTED.gate, WANTED.reached = numbers(1, 2), asyncio.Event(), asyncio.Event()
    await runner.take(await bench.command(parent))
    await WANTED.reached.wait()
    async with bench.database.transaction() as session:
        await set_paused(session, True, "me")
    WANTED.gate.set()
    await until(lambda: runner.running == 0, "the step has ended")
    reconciler = bench.reconciler()
    await reconciler.run_once()
    assert len(await children(bench)) == 2
    assert await queued(bench) == []
    async with bench.database.transaction() as session:
        await set_paused(session, False, "me")
    await reconciler.run_once()
    assert len(await queued(bench)) == 2


async def test_children_are_listed_by_their_parent_and_name_it(bench: Bench) -> None:
    parent, _ = await start_children(bench, "child", numbers(1, 2))
    await start_children(bench, "child", numbers(1))
    async with bench.database.transaction() as session:
        page = await page_processes(session, read_request(filters=[f"parent,{parent}"]))
        assert {row["parent_id"] for row in page.rows} == {parent}
        assert len(page.rows) == 2
        assert json.loads((await read_detail(session, page.rows[0]["process_id"])).head)["parent_id"] == str(parent)
        assert json.loads((await read_detail(session, parent)).head)["parent_id"] is None
