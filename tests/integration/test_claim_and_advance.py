"""The two statements of every step, on a real PostgreSQL: who may claim, who may commit, and what that costs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from orchestrator.db.callbacks import hash_token, read_token
from orchestrator.db.processes.advance import Advance, advance, advance_many, is_committed
from orchestrator.db.processes.claims import Claim, Wanted, claim_many, list_claims, load_following_claim
from orchestrator.db.processes.insert import NewProcess, insert_process
from orchestrator.db.processes.outbox import Mark, mark_announced
from orchestrator.db.processes.rows import load_process
from orchestrator.db.session import Database
from orchestrator.engine.decide import Decision, decide
from orchestrator.engine.events import Aborted, AttemptLost, Patched, Stamp, Started, StepSucceeded
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.messages import StepCommand
from orchestrator.types import ProcessStatus, State
from orchestrator.workflow import StepList, begin, callback_step, done, init, step, workflow
from tests.integration.waiting import until


@step("first")
async def first() -> State:
    return {}


@step("second")
async def second() -> State:
    return {}


@step("action")
async def action(callback_token: str) -> State:
    return {"length": len(callback_token)}


@step("judge")
async def judge() -> State:
    return {}


@workflow("Two steps")
def two_steps() -> StepList:
    return init >> first >> second >> done


@workflow("A callback")
def with_callback() -> StepList:
    return begin >> callback_step("wait", action, judge, timeout=60)


STAMP = Stamp(lambda: "the-token")


class Bench:
    """A database with one registered workflow, and a consumer."""

    def __init__(self, database: Database, workflow_id: UUID, consumer: UUID) -> None:
        self.database, self.workflow_id, self.consumer = database, workflow_id, consumer

    async def start(self, plan: Plan, state: State | None = None) -> Process:
        process = Process(uuid4(), plan.workflow.name, ProcessStatus.CREATED, 0, None, 0, 0, {}, "me", "me")
        decision = decide(plan, process, Started(state or {}), STAMP)
        async with self.database.transaction() as session:
            await insert_process(session, NewProcess(decision, self.workflow_id, False, None, None, due_in=5))
        return decision.process

    async def claim(self, process: Process, attempt: int | None = None, consumer: UUID | None = None) -> Claim | None:
        async with self.database.pool.acquire() as connection:
            wanted = command_for(process, process.attempt if attempt is None else attempt)
            (claimed,) = await claim_many(connection, [wanted], consumer_id=consumer or self.consumer, consumer="test")
            return claimed


def command_for(process: Process, attempt: int = 0) -> Wanted:
    command = StepCommand(
        process_id=process.process_id, workflow="two_steps", step="a", position=process.position, attempt=attempt
    )
    return Wanted(command, process.plan or PLAN.fingerprint)


@pytest.fixture
async def bench(database: Database) -> Bench:
    workflow_id = await database.pool.fetchval(
        "INSERT INTO workflows (name, target) VALUES ('two_steps', 'SYSTEM') RETURNING workflow_id"
    )
    consumer = uuid4()
    await database.pool.execute(
        "INSERT INTO consumers (consumer_id, name, queues, concurrency) VALUES ($1, 'test', '{}', 1)", consumer
    )
    return Bench(database, workflow_id, consumer)


PLAN = Plan.of(two_steps)
CALLBACK_PLAN = Plan.of(with_callback)


async def test_of_many_claims_of_one_command_one_succeeds(bench: Bench) -> None:
    """B4: a command delivered twice runs the step once."""
    process = await bench.start(PLAN, {"a": 1})
    claims = await asyncio.gather(*(bench.claim(process) for _ in range(8)))
    won = [one for one in claims if one is not None]
    assert len(won) == 1
    assert won[0].process.attempt == 1
    assert won[0].process.state == {"a": 1}


async def test_an_unknown_consumer_cannot_claim(bench: Bench) -> None:
    process = await bench.start(PLAN)
    assert await bench.claim(process, consumer=uuid4()) is None


async def test_nothing_is_claimed_while_the_engine_is_paused(bench: Bench) -> None:
    process = await bench.start(PLAN)
    await bench.database.pool.execute("UPDATE engine_settings SET global_lock = true")
    assert await bench.claim(process) is None
    await bench.database.pool.execute("UPDATE engine_settings SET global_lock = false")
    assert await bench.claim(process) is not None


async def test_a_step_is_committed_with_its_log_row_position_and_state(bench: Bench) -> None:
    """B3: one commit; afterwards the next step's claim finds everything."""
    process = await bench.start(PLAN, {"a": 1})
    held = await bench.claim(process)
    assert held is not None
    decision = decide(PLAN, held.process, StepSucceeded(1, {"b": "ü"}), STAMP)
    async with bench.database.pool.acquire() as connection:
        assert await advance(connection, Advance(held.process, decision, 5, held)) is not None
        assert await is_committed(connection, process.process_id, 1)
        assert not await is_committed(connection, process.process_id, 2)
    async with bench.database.transaction() as session:
        now = await load_process(session, process.process_id)
    assert (now.position, now.step, now.state, now.attempt) == (2, "second", {"a": 1, "b": "ü"}, 1)
    assert await bench.claim(now) is not None


async def test_an_attempt_that_was_given_to_others_cannot_commit(bench: Bench) -> None:
    """B8: the fence: a consumer that was presumed dead and comes back is refused by the database."""
    process = await bench.start(PLAN)
    held = await bench.claim(process)
    assert held is not None
    async with bench.database.pool.acquire() as connection:
        lost = decide(PLAN, held.process, AttemptLost(1, "test"), STAMP)
        assert await advance(connection, Advance(held.process, lost, 0, held)) is not None
        late = decide(PLAN, held.process, StepSucceeded(1, {"late": True}), STAMP)
        assert await advance(connection, Advance(held.process, late, 5, held)) is None
    again = await bench.claim(replace(lost.process))
    assert again is not None
    assert again.process.attempt == 2
    assert again.process.state == {}


async def test_an_abort_overtakes_the_running_step(bench: Bench) -> None:
    process = await bench.start(PLAN)
    held = await bench.claim(process)
    assert held is not None
    async with bench.database.pool.acquire() as connection:
        abort = decide(PLAN, held.process, Aborted("boss"), STAMP)
        assert await advance(connection, Advance(held.process, abort, None)) is not None
        late = decide(PLAN, held.process, StepSucceeded(1, {"late": True}), STAMP)
        assert await advance(connection, Advance(held.process, late, 5, held)) is None


async def test_the_same_attempt_claimed_twice_after_a_server_crash_commits_once(bench: Bench) -> None:
    """A claim may be lost in a crash of the server; then two consumers hold one attempt number, and one of them the row."""
    process = await bench.start(PLAN)
    first_claim = await bench.claim(process)
    assert first_claim is not None
    await bench.database.pool.execute("UPDATE processes SET attempt = 0, claimed_by = NULL")  # what the crash does
    other = uuid4()
    await bench.database.pool.execute(
        "INSERT INTO consumers (consumer_id, name, queues, concurrency) VALUES ($1, 'other', '{}', 1)", other
    )
    second_claim = await bench.claim(process, consumer=other)
    assert second_claim is not None
    decision = decide(PLAN, first_claim.process, StepSucceeded(1, {}), STAMP)
    async with bench.database.pool.acquire() as connection:
        assert await advance(connection, Advance(first_claim.process, decision, 5, first_claim)) is None
        assert await advance(connection, Advance(second_claim.process, decision, 5, second_claim)) is not None


async def test_the_full_state_at_any_step_is_the_fold_of_the_log(bench: Bench) -> None:
    process = await bench.start(PLAN, {"a": 1})
    held = await bench.claim(process)
    assert held is not None
    async with bench.database.pool.acquire() as connection:
        decision = decide(PLAN, held.process, StepSucceeded(1, {"a": 2, "b": [1]}), STAMP)
        await advance(connection, Advance(held.process, decision, 5, held))
        failed = replace(decision.process, status=ProcessStatus.FAILED)
        patched = decide(PLAN, failed, Patched("me", "wrong", {"c": None}, ("b",)), STAMP)
        await advance(connection, Advance(failed, patched, None))
        rows = await connection.fetch(
            "SELECT delta::text, removed FROM process_steps WHERE process_id = $1 ORDER BY sequence", process.process_id
        )
    assert rows[0]["delta"] == '{"a": 1}'
    assert rows[-1]["removed"] == ["b"]
    async with bench.database.transaction() as session:
        assert (await load_process(session, process.process_id)).state == {"a": 2, "c": None}


async def test_a_callback_token_is_plain_until_the_action_has_committed(bench: Bench) -> None:
    """B36: the job of a lost run must still be able to answer; afterwards only the hash remains."""
    process = await bench.start(CALLBACK_PLAN)
    async with bench.database.pool.acquire() as connection:
        assert await read_token(connection, process.process_id) == "the-token"
        held = await bench.claim(process)
        assert held is not None
        decision = decide(CALLBACK_PLAN, held.process, StepSucceeded(1, {}), STAMP)
        await advance(connection, Advance(held.process, decision, 1, held))
        assert await read_token(connection, process.process_id) is None
        row = await connection.fetchrow("SELECT token, token_hash, status FROM callbacks")
    assert row is not None
    assert (row["token"], row["token_hash"], row["status"]) == (None, hash_token("the-token"), "parked")


async def test_a_step_costs_two_statements_and_one_durable_transaction(bench: Bench) -> None:
    """The claim may skip the wait for the disk, the commit may not; nothing else is sent."""
    async with bench.database.pool.acquire() as connection:
        await advance(connection, Advance(*_nothing(), None))  # the driver learns the array types, once
        process = await bench.start(PLAN)
        sent: list[str] = []
        connection.add_query_logger(lambda record: sent.append(record.query))
        wanted = command_for(process)
        (held,) = await claim_many(connection, [wanted], consumer_id=bench.consumer, consumer="test")
        assert held is not None
        assert await connection.fetchval("SHOW synchronous_commit") == "on", (
            "the setting ends with the claim's transaction"
        )
        decision = decide(PLAN, held.process, StepSucceeded(1, {}), STAMP)
        await advance(connection, Advance(held.process, decision, 5, held))
        await connection.fetchval("SHOW synchronous_commit")  # the driver says a turn later what it has sent
    statements = [query for query in sent if "SHOW" not in query]
    assert len(statements) == 2
    assert "set_config('synchronous_commit', 'off', true)" in statements[0]
    assert "synchronous_commit" not in statements[1]


@pytest.mark.parametrize(("again", "waits"), [(None, "off"), (5.0, "on")])
async def test_a_mark_waits_for_the_disk_if_events_are_left(bench: Bench, again: float | None, waits: str) -> None:
    """Otherwise a crash of the server that loses it repeats events, which readers must expect."""
    process = await bench.start(PLAN)
    async with bench.database.pool.acquire() as connection:
        async with connection.transaction():
            await mark_announced(connection, {process.process_id: Mark(1, again)})
            assert await connection.fetchval("SHOW synchronous_commit") == waits
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        row = await connection.fetchrow("SELECT announced, announce_at IS NULL AS rests FROM processes")
    assert row is not None
    assert row["announced"] == 1
    assert row["rests"] == (again is None)


async def test_a_claim_in_the_statement_that_ends_a_step_costs_nothing_more_and_waits_for_the_disk(
    bench: Bench,
) -> None:
    """It is one transaction with what the step has written. The claim is that of a claim of its own."""
    async with bench.database.pool.acquire() as connection:
        process = await bench.start(PLAN)
        (held,) = await claim_many(connection, [command_for(process)], consumer_id=bench.consumer, consumer="test")
        assert held is not None
        decision = decide(PLAN, held.process, StepSucceeded(1, {"n": 1}), STAMP)
        await advance(connection, Advance(*_nothing(), None))
        sent: list[str] = []
        connection.add_query_logger(lambda record: sent.append(record.query))
        async with connection.transaction():
            receipt = await advance(connection, Advance(held.process, decision, 5, held, goes_on=True))
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert len([query for query in sent if "SHOW" not in query and "processes" in query]) == 1
        assert receipt is not None
        following = receipt.following
        assert following is not None
        (listed,) = await list_claims(connection, bench.consumer, "test")
        assert listed == following
        assert (following.process.step, following.process.attempt) == ("second", 2)
        assert await load_following_claim(connection, held) == following
        late = decide(PLAN, held.process, StepSucceeded(1, {}), STAMP)
        assert await advance(connection, Advance(held.process, late, 5, held, goes_on=True)) is None


async def test_no_step_is_claimed_with_the_end_of_another_by_a_consumer_without_a_row(bench: Bench) -> None:
    async with bench.database.pool.acquire() as connection:
        process = await bench.start(PLAN)
        (held,) = await claim_many(connection, [command_for(process)], consumer_id=bench.consumer, consumer="test")
        assert held is not None
        await connection.execute("DELETE FROM consumers")
        decision = decide(PLAN, held.process, StepSucceeded(1, {}), STAMP)
        receipt = await advance(connection, Advance(held.process, decision, 5, held, goes_on=True))
        assert receipt is not None, "the step is stored all the same"
        assert receipt.following is None
        assert await list_claims(connection, bench.consumer, "test") == []


def _nothing() -> tuple[Process, Decision]:
    """A decision that no row is there for."""
    process = Process(uuid4(), "two_steps", ProcessStatus.CREATED, 0, None, 0, 0, {}, "me", "me")
    return process, decide(PLAN, process, Started({}), STAMP)


async def test_many_steps_share_a_statement_and_are_fenced_one_by_one(bench: Bench) -> None:
    """A stale command or an overtaken attempt among them is refused alone; two commands for one step give one claim."""
    processes = [await bench.start(PLAN, {"n": n}) for n in range(5)]
    wanted = [command_for(one) for one in processes]
    stale = command_for(processes[0], 7)
    async with bench.database.pool.acquire() as connection:
        claims = await claim_many(connection, [stale, *wanted, wanted[1]], consumer_id=bench.consumer, consumer="test")
        assert [one is not None for one in claims] == [False, True, True, True, True, True, False]
        held = [one for one in claims if one is not None]
        assert [one.process.state["n"] for one in held] == [0, 1, 2, 3, 4]
        lost = decide(PLAN, held[2].process, AttemptLost(1, "test"), STAMP)
        await advance(connection, Advance(held[2].process, lost, 0, held[2]))
        advances = [
            Advance(
                one.process,
                decide(PLAN, one.process, StepSucceeded(1, {"done": one.process.state["n"]}), STAMP),
                5,
                one,
            )
            for one in held
        ]
        stored = await advance_many(connection, advances)
    assert [at is not None for at in stored] == [True, True, False, True, True]
    async with bench.database.transaction() as session:
        states = [(await load_process(session, one.process_id)).state for one in processes]
    assert states == [{"n": 0, "done": 0}, {"n": 1, "done": 1}, {"n": 2}, {"n": 3, "done": 3}, {"n": 4, "done": 4}]


async def _wait_for_a_lock(bench: Bench) -> None:
    """Wait until a session of this database waits for another one's lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await until(lambda: bench.database.pool.fetchval(waiting), "a statement waits for a row")


async def test_steps_that_share_a_statement_are_claimed_and_stored_after_others_have_marked_their_rows(
    bench: Bench,
) -> None:
    """The statement waits for a row, and finds in it what is new. Marks do not move a process."""
    processes = [await bench.start(PLAN, {"n": n}) for n in range(3)]
    async with bench.database.pool.acquire() as other, bench.database.pool.acquire() as connection:
        async with other.transaction():
            await mark_announced(other, {one.process_id: Mark(1) for one in processes})
            claiming = asyncio.create_task(
                claim_many(
                    connection, [command_for(one) for one in processes], consumer_id=bench.consumer, consumer="test"
                )
            )
            await _wait_for_a_lock(bench)
        held = [one for one in await claiming if one is not None]
        assert [one.process.state["n"] for one in held] == [0, 1, 2]
        advances = [
            Advance(one.process, decide(PLAN, one.process, StepSucceeded(1, {}), STAMP), 5, one) for one in held
        ]
        async with other.transaction():
            await mark_announced(other, {one.process_id: Mark(2) for one in processes})
            await other.execute("UPDATE processes SET claimed_by = NULL WHERE process_id = $1", processes[1].process_id)
            storing = asyncio.create_task(advance_many(connection, advances))
            await _wait_for_a_lock(bench)
        receipts = await storing
    assert [None if one is None else one.announced for one in receipts] == [2, None, 2]


async def test_times_are_those_of_the_end_of_a_step_not_of_its_transaction(bench: Bench) -> None:
    """A step with a session may keep its transaction open for long; nothing may count from its beginning."""
    process = await bench.start(CALLBACK_PLAN)
    held = await bench.claim(process)
    assert held is not None
    async with bench.database.pool.acquire() as connection, connection.transaction():
        began = await connection.fetchval("SELECT now()")
        await connection.execute("SELECT pg_sleep(0.3)")
        decision = decide(CALLBACK_PLAN, held.process, StepSucceeded(1, {}), STAMP)
        await advance(connection, Advance(held.process, decision, 2, held))
    row = await bench.database.pool.fetchrow(
        "SELECT s.finished_at, p.due_at, c.deadline FROM process_steps s JOIN processes p USING (process_id)"
        " JOIN callbacks c USING (process_id) WHERE s.name = 'action'"
    )
    assert row is not None
    for moment, least in ((row["finished_at"], 0.3), (row["due_at"], 2.3), (row["deadline"], 60.3)):
        assert (moment - began).total_seconds() >= least
