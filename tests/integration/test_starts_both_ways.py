"""A start by one statement and one with all the rules: the same results, whatever is requested and whatever the database has."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import aio_pika
import pytest

from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.publisher import Answer
from orchestrator.db.session import Database
from orchestrator.errors import ConflictError, OrchestratorError, PublishError
from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.messages import Advanced
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartOutcome, StartRequest, start
from orchestrator.services.starter import AT_ONCE, Starter
from orchestrator.types import State
from orchestrator.workflow import Step, StepList, begin, callback_step, conditional, done, init, step, workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of, delivery
from tests.integration.test_broker import letters

Way = Callable[[StartRequest], Awaitable[StartOutcome]]


class Page(FormPage):
    number: int


async def form() -> AsyncFormGenerator:
    page = yield Page
    yield page.model_dump()


async def never() -> str:
    return "not today"


async def only_ana(user: str) -> bool:
    return user == "ana"


@step("Work")
async def work() -> None:
    return None


@step("Check")
async def check(callback_result: State) -> State:
    return callback_result


def wrong() -> bool:
    raise ValueError("asked too early")


def _named(number: int) -> Step:
    return step(f"Left out {number}")(_nothing)


async def _nothing() -> None:
    return None


LEFT_OUT = begin >> _named(1) >> _named(2) >> _named(3) >> _named(4) >> _named(5)


@workflow("Works")
def works() -> StepList:
    return init >> work >> done


@workflow("Has nothing to do")
def idles() -> StepList:
    return init >> done


@workflow("Leaves out more steps than a single row has entries")
def leaves_out() -> StepList:
    return init >> conditional(lambda: False)(LEFT_OUT) >> work >> done


@workflow("Fails where it begins")
def fails_at_once() -> StepList:
    return init >> conditional(wrong)(begin >> work) >> done


@workflow("Calls out")
def calls_out() -> StepList:
    return init >> callback_step("Order", work, check, timeout=60) >> done


@workflow("Asks", initial_input_form=form)
def asks() -> StepList:
    return init >> work >> done


@workflow("Never runs", run_predicate=never)
def never_runs() -> StepList:
    return init >> work >> done


@workflow("For Ana", authorize_callback=only_ana)
def for_ana() -> StepList:
    return init >> work >> done


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    every = (works, idles, leaves_out, fails_at_once, calls_out, asks, never_runs, for_ana)
    async with bench_of(database, amqp_url, monkeypatch, __name__, *every) as made:
        async with database.transaction() as session:
            await ProgramPlans.load().register(session, "the test")
        yield made


async def with_all_rules(database: Database, request: StartRequest) -> StartOutcome:
    async with database.transaction() as session:
        return await start(session, request, LIMITS)


@dataclass(frozen=True)
class Case:
    """A request, what the database has had to go through before, and whether one statement is enough."""

    request: StartRequest
    before: tuple[str, ...] = ()
    first: StartRequest | None = None
    at_once: bool = False


PAUSED = "UPDATE engine_settings SET global_lock = true"
REMOVED = "UPDATE workflows SET deleted_at = now() WHERE name = 'works'"
OTHER_PLAN = """
INSERT INTO workflow_plans (workflow, number, fingerprint, steps, registered_by)
SELECT workflow, number + 1, 'x', steps, 'x' FROM workflow_plans
"""
UNKNOWN_PLAN = "ALTER TABLE workflow_plans DISABLE TRIGGER append_only; UPDATE workflow_plans SET fingerprint = 'x'"
NO_PLAN = "DELETE FROM workflow_plans"
PLAIN = StartRequest("works", (), "ana")
KEYED = replace(PLAIN, key="order-1")
SENT = replace(KEYED, sender="svc")

CASES = {
    "plain": Case(PLAIN, at_once=True),
    "empty pages": Case(replace(PLAIN, inputs=[{}, {}]), at_once=True),
    "with a key": Case(KEYED, at_once=True),
    "of a sender": Case(SENT, at_once=True),
    "of a sender who is the user": Case(replace(SENT, sender="ana"), at_once=True),
    "nothing to do": Case(StartRequest("idles"), at_once=True),
    "a condition": Case(StartRequest("leaves_out")),
    "a condition that raises": Case(StartRequest("fails_at_once")),
    "a condition while paused": Case(StartRequest("fails_at_once"), (PAUSED,)),
    "a callback": Case(StartRequest("calls_out")),
    "repeated": Case(KEYED, first=KEYED),
    "repeated by a sender": Case(SENT, first=SENT),
    "repeated with the key of an older version": Case(SENT, first=KEYED),
    "an older key of another user": Case(replace(SENT, user="bob"), first=KEYED, at_once=True),
    "an older key of another request": Case(replace(SENT, inputs=[{}]), first=KEYED, at_once=True),
    "a key that was used": Case(replace(KEYED, inputs=[{}]), first=KEYED),
    "a key that was used for another workflow": Case(replace(KEYED, workflow="idles"), first=KEYED),
    "paused": Case(KEYED, (PAUSED,)),
    "repeated while paused": Case(KEYED, (PAUSED,), first=KEYED),
    "unknown": Case(StartRequest("no_such")),
    "removed": Case(PLAIN, (REMOVED,)),
    "repeated and removed": Case(KEYED, (REMOVED,), first=KEYED),
    "an older plan": Case(SENT, (OTHER_PLAN,)),
    "an unknown plan": Case(PLAIN, (UNKNOWN_PLAN,)),
    "no plan": Case(PLAIN, (NO_PLAN,)),
    "input without a form": Case(replace(PLAIN, inputs=[{"a": 1}])),
    "input that JSON cannot hold": Case(replace(PLAIN, inputs=[{"a": float("nan")}])),
    "a form": Case(StartRequest("asks", [{"number": 1}])),
    "a form not filled in": Case(StartRequest("asks")),
    "a predicate": Case(StartRequest("never_runs")),
    "an authorization": Case(StartRequest("for_ana", user="ana")),
    "an authorization that refuses": Case(StartRequest("for_ana", user="bob")),
}

_TIMES = (
    "'started_at', 'finished_at', 'due_at', 'wake_at', 'announce_at', 'updated_at', 'rested_at', 'txid', 'process_id'"
)
_ROWS = f"""
SELECT (to_jsonb(p) - ARRAY[{_TIMES}])::text AS process,
       EXTRACT(EPOCH FROM p.due_at - p.started_at)::int AS due, EXTRACT(EPOCH FROM p.wake_at - p.started_at)::int AS wakes,
       EXTRACT(EPOCH FROM p.announce_at - p.started_at)::int AS announced,
       ARRAY(SELECT (to_jsonb(s) - ARRAY[{_TIMES}])::text FROM process_steps AS s WHERE s.process_id = p.process_id
              ORDER BY s.sequence) AS entries
  FROM processes AS p WHERE p.started_by <> 'mate' ORDER BY p.started_at
"""
_WIPE = "DELETE FROM process_steps; DELETE FROM processes"


MATE = StartRequest("works", (), "mate")
"""Starts that come at the same moment."""


def share(starter: Starter) -> Way:
    """Return the way by a statement that others share."""

    async def way(request: StartRequest) -> StartOutcome:
        # The first ones are on their way before any other: nothing answers before the event loop looks at its sockets.
        mates = [asyncio.create_task(starter.start(MATE)) for _ in range(AT_ONCE + 1)]
        own = asyncio.create_task(starter.start(request))
        mates += [asyncio.create_task(starter.start(MATE)) for _ in range(2)]
        await asyncio.wait([own, *mates])
        assert all(isinstance(one.exception(), OrchestratorError | None) for one in mates)
        return await own

    return way


async def observe(bench: Bench, case: Case, way: Way) -> list[object]:
    """Return all that a start has brought about: the answer, the message, and the rows; without ids and times."""
    pool = bench.database.pool
    first = None if case.first is None else await with_all_rules(bench.database, case.first)
    for statement in case.before:
        await pool.execute(statement)
    found: list[object] = []
    try:
        outcome = await way(case.request)
        found += [outcome.created, None if first is None else outcome.process_id == first.process_id]
        if outcome.message is not None:
            document = outcome.message.model_dump(mode="json", exclude={"at", "process_id"})
            found.append(document)
            assert outcome.message.process_id == outcome.process_id
    except OrchestratorError as error:
        found += [type(error), re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "an id", str(error)), error.lacks_code]
    found += [dict(row) for row in await pool.fetch(_ROWS)]
    return found


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("name", CASES)
async def test_a_start_by_one_statement_is_the_start_that_the_rules_describe(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, *, shared: bool
) -> None:
    case, database = CASES[name], bench.database
    called: list[str] = []
    run = database.author_code.run

    async def note(workflow: str, act: Any, **options: Any) -> Any:
        called.append(workflow)
        return await run(workflow, act, **options)

    monkeypatch.setattr(database.author_code, "run", note)
    starter = Starter(database, LIMITS)
    short = await observe(bench, case, share(starter) if shared else starter.start)
    if shared and case.at_once:
        statements = """
            SELECT count(DISTINCT xmin::text) FROM processes
             WHERE started_by = 'mate' OR started_at = (SELECT max(started_at) FROM processes WHERE started_by <> 'mate')
        """
        assert await database.pool.fetchval(statements) == AT_ONCE + 1
    assert [one for one in called if one != MATE.workflow or not shared] == (
        [] if case.at_once or (shared and case.request.workflow == MATE.workflow) else [case.request.workflow]
    )
    await database.pool.execute(_WIPE)
    await database.pool.execute(
        "UPDATE engine_settings SET global_lock = false; UPDATE workflows SET deleted_at = NULL"
    )
    if case.before == (NO_PLAN,):
        assert await database.pool.fetchval("SELECT count(*) FROM workflow_plans") == 1, "the plan is kept"
    full = await observe(
        bench,
        replace(case, before=case.before[: case.before in [(PAUSED,), (REMOVED,), (NO_PLAN,)]]),
        lambda one: with_all_rules(database, one),
    )
    assert short == full


async def test_starts_of_one_kind_have_their_own_ids_keys_and_times_whichever_came_first(bench: Bench) -> None:
    """All by one starter, which remembers what they have in common."""
    starter = Starter(bench.database, LIMITS)
    requests = [SENT, replace(SENT, key=None), replace(SENT, key="order-2"), replace(SENT, user="bob", key="order-3")]
    outcomes = [await starter.start(one) for one in requests]
    rows = {
        row["process_id"]: row
        for row in await bench.database.pool.fetch(
            "SELECT p.*, s.finished_at FROM processes AS p JOIN process_steps AS s USING (process_id) WHERE s.sequence = 1"
        )
    }
    assert len(rows) == 4
    for request, outcome in zip(requests, outcomes, strict=True):
        row, key, message = rows[outcome.process_id], request.stored_key, outcome.message
        assert message is not None
        assert (message.process_id, message.at) == (outcome.process_id, row["finished_at"])
        assert row["request_key"] == (None if key is None else key.text)
        assert row["request_digest"] == (None if key is None else request.digest())
        assert row["started_by"] == message.user == request.user
    repeated = [await starter.start(one) for one in requests if one.key is not None]
    assert [one.process_id for one in repeated] == [outcomes[0].process_id, *(one.process_id for one in outcomes[2:])]


async def test_of_many_starts_with_one_key_at_once_one_starts_the_process_whichever_way_they_go(bench: Bench) -> None:
    starter, database = Starter(bench.database, LIMITS), bench.database
    both: list[Way] = [starter.start, lambda one: with_all_rules(database, one)]
    for number in range(5):
        request = replace(SENT, key=f"order-{number}")
        outcomes = await asyncio.gather(*(way(request) for way in both for _ in range(6)))
        assert len({one.process_id for one in outcomes}) == 1
        assert [one.created for one in outcomes].count(True) == 1
    assert await database.pool.fetchval("SELECT count(*) FROM processes") == 5


async def test_of_two_different_requests_with_one_key_at_once_one_is_refused(bench: Bench) -> None:
    starter = Starter(bench.database, LIMITS)
    requests = [KEYED, replace(KEYED, inputs=[{}])]
    outcomes = await asyncio.gather(*map(starter.start, requests), return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == [ConflictError.__name__, StartOutcome.__name__]


async def test_a_start_whose_coordinator_dies_before_it_publishes_is_published_when_the_command_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once only, however often it comes."""
    published: list[Advanced] = []
    publish = bench.dispatcher.publish

    async def dies(message: Advanced, **_: Any) -> bool:
        raise asyncio.CancelledError

    async def note(message: Advanced, **options: Any) -> bool:
        published.append(message)
        return await publish(message, **options)

    async with await aio_pika.connect(bench.address.url) as connection:
        await (await connection.channel()).declare_queue("mine", durable=True)
    body = json.dumps({"workflow": "works", "idempotency_key": "order-1"}).encode()
    command = replace(delivery("workflow.start", body), reply_to="mine")
    monkeypatch.setattr(bench.dispatcher, "publish", dies)
    with pytest.raises(asyncio.CancelledError):
        await bench.handlers.take_command(command)
    (row,) = await bench.database.pool.fetch("SELECT process_id FROM processes")
    monkeypatch.setattr(bench.dispatcher, "publish", note)
    await bench.handlers.take_command(replace(command, redelivered=True))
    (answer,) = await letters(bench.address.url, "mine")
    assert json.loads(answer.body) == {"process_id": str(row["process_id"]), "created": False}
    assert [(one.process_id, one.next is not None) for one in published] == [(row["process_id"], True)]


async def test_a_start_that_the_broker_does_not_take_is_stored_and_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await aio_pika.connect(bench.address.url) as connection:
        await (await connection.channel()).declare_queue("mine", durable=True)
    publish = bench.publisher.publish

    async def publish_replies(message: Outgoing) -> Answer:
        if message.routing_key != "mine":
            raise PublishError("the broker is blocked")
        return await publish(message)

    monkeypatch.setattr(bench.publisher, "publish", publish_replies)
    await bench.handlers.take_command(replace(delivery("workflow.start", b'{"workflow": "works"}'), reply_to="mine"))
    (answer,) = await letters(bench.address.url, "mine")
    found = json.loads(answer.body)
    assert found["created"] is True
    assert (await bench.row(UUID(found["process_id"])))["status"] == "running"
