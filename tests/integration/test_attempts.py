"""Attempts as the consumer runs them: how they fail, what they leave behind, and that none holds up another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from structlog.testing import capture_logs
from tenacity import wait_fixed

from orchestrator import user_code
from orchestrator.broker.publisher import Publisher
from orchestrator.broker.topology import Topology
from orchestrator.db.session import Database
from orchestrator.errors import ProcessFailureError
from orchestrator.retry import RetryPolicy
from orchestrator.workflow import StepList, done, init, retrystep, step, workflow
from tests.integration.engine_bench import Bench, bench_of, resume
from tests.integration.step_sessions import checked_out
from tests.integration.waiting import until

EVENTS: dict[str, asyncio.Event] = {}
"""What steps wait for and tell; new for each test, because an event belongs to an event loop."""

LATE: list[BaseException | None] = []
"""What those that were left behind have met."""

PASSWORD = "hunter2"


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    thing_id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


@step("Gated")
async def gated() -> None:
    await EVENTS["gate"].wait()


async def slow_directory(user: str) -> bool:
    EVENTS["asked"].set()
    await EVENTS["answer"].wait()
    return True


@workflow("Its retry is asked of a slow directory", retry_auth_callback=slow_directory)
def asks() -> StepList:
    return init >> gated >> done


@workflow("Nobody is asked")
def plain() -> StepList:
    return init >> gated >> done


@step("Change a thing", timeout=0.5)
async def change_thing(session: AsyncSession) -> None:
    found = await session.get(Thing, 1)
    assert found is not None
    found.value = 2


@workflow("Changes a thing")
def changes() -> StepList:
    return init >> change_thing >> done


@step("Ask for little time")
async def ask_for_little_time(session: AsyncSession) -> None:
    await session.execute(text("SET LOCAL statement_timeout = '50ms'"))
    await session.execute(text("SELECT pg_sleep(2)"))


@workflow("Sets a timeout of its own")
def has_little_time() -> StepList:
    return init >> ask_for_little_time >> done


@step("Store a password")
async def store_password(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO secrets VALUES (:name, :password)"), {"name": "a", "password": PASSWORD})


@workflow("Stores a password twice")
def stores() -> StepList:
    return init >> store_password >> done


@retrystep("Wait for ever", retry=RetryPolicy(wait_fixed(float("inf"))))
async def wait_for_ever() -> None:
    raise ProcessFailureError("the device says no")


@workflow("Its next try never comes")
def never_again() -> StepList:
    return init >> wait_for_ever >> done


async def write_late(session: AsyncSession) -> None:
    await EVENTS["gate"].wait()
    try:
        await session.execute(text("INSERT INTO things VALUES (9, 9)"))
        await session.commit()
    except Exception as error:
        LATE.append(error)
    else:
        LATE.append(None)


@step("Ignore the timeout", timeout=2)
async def ignore_timeout(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO things VALUES (8, 8)"))
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await write_late(session)


@workflow("Goes on after its timeout")
def goes_on() -> StepList:
    return init >> ignore_timeout >> done


@step("Leave a task behind")
async def leave_task(session: AsyncSession) -> None:
    LEFT.append(asyncio.create_task(write_late(session)))


LEFT: list[asyncio.Task[None]] = []


@workflow("Leaves a task behind")
def leaves() -> StepList:
    return init >> leave_task >> done


@step("Use the session at once")
async def use_at_once(session: AsyncSession) -> None:
    await asyncio.gather(*(session.execute(text("SELECT 1")) for _ in range(3)))


@workflow("Its tasks share the session")
def shares() -> StepList:
    return init >> use_at_once >> done


WORKFLOWS = (asks, plain, changes, has_little_time, stores, never_again, goes_on, leaves, shares)


@pytest.fixture
async def bench(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    EVENTS.update({name: asyncio.Event() for name in ("gate", "asked", "answer")})
    LATE.clear()
    LEFT.clear()
    await database.pool.execute("CREATE TABLE things (thing_id int PRIMARY KEY, value int)")
    async with bench_of(database, amqp_url, monkeypatch, __name__, *WORKFLOWS) as made:
        yield made
        EVENTS["answer"].set()
        EVENTS["gate"].set()


async def test_a_step_that_ignores_its_timeout_cannot_commit_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B5: nothing of a step that has failed is stored, however long it goes on."""
    monkeypatch.setattr(user_code, "CANCEL_GRACE", 0.1)
    process_id = await bench.run("goes_on")
    assert "it ran longer than its timeout of 2 s" in await bench.failure(process_id)
    EVENTS["gate"].set()
    await until(lambda: LATE, "it has tried")
    assert "the step has ended, and its session with it" in str(LATE[0])
    assert await bench.database.pool.fetchval("SELECT count(*) FROM things") == 0
    assert checked_out(bench.database) == 0


async def test_what_steps_leave_behind_takes_no_connections(bench: Bench) -> None:
    """They would be missing to other steps, until all stand still."""
    runner = await bench.runner()
    for _ in range(6):
        await bench.run("leaves", runner)
    EVENTS["gate"].set()
    await until(lambda: len(LATE) == 6, "all have tried")
    assert all("the step has ended, and its session with it" in str(one) for one in LATE)
    assert checked_out(bench.database) == 0


async def test_a_step_whose_tasks_share_its_session_fails_with_words_and_leaves_no_connection_behind(
    bench: Bench,
) -> None:
    process_id = await bench.run("shares")
    failure = await bench.failure(process_id)
    assert "concurrent operations are not permitted" in failure
    assert "a session is for one task at a time" in failure
    await until(lambda: not checked_out(bench.database), "all connections are given back")


async def test_an_attempt_whose_outcome_cannot_be_stored_does_not_end_unheard(bench: Bench) -> None:
    """A person must hear why a process stands still."""
    runner = await bench.runner()
    await runner.take(await bench.command(await bench.start("plain")))
    await bench.database.pool.execute("ALTER TABLE process_steps RENAME COLUMN note TO gone")
    with capture_logs() as logs:
        EVENTS["gate"].set()
        await until(lambda: runner.running == 0, "the attempt has ended")
    assert "an attempt has ended without an outcome" in [one["event"] for one in logs]


async def test_a_statement_timeout_of_the_steps_own_is_the_steps_failure(bench: Bench) -> None:
    """Not a loss of the database, and not a consumer that was brought down."""
    process_id = await bench.run("has_little_time")
    assert "statement timeout" in await bench.failure(process_id)


async def test_what_a_session_sends_at_the_end_is_within_the_steps_timeout(bench: Bench) -> None:
    """B5: the object was changed and is sent by the engine, behind somebody who has locked the row."""
    await bench.database.pool.execute("INSERT INTO things VALUES (1, 1)")
    async with bench.database.transaction() as holder:
        await holder.execute(text("SELECT 1 FROM things FOR UPDATE"))
        process_id = await bench.run("changes")
    assert "it ran longer than its timeout of 0.5 s" in await bench.failure(process_id)


async def test_neither_the_log_nor_the_failure_has_the_parameters_of_a_steps_statement(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """The database refuses what the step wrote."""
    await bench.database.pool.execute("CREATE TABLE secrets (name text PRIMARY KEY, password text)")
    await bench.database.pool.execute("INSERT INTO secrets VALUES ('a', 'b')")
    process_id = await bench.run("stores")
    failure = await bench.failure(process_id)
    assert "duplicate key" in failure
    captured = capsys.readouterr()
    assert PASSWORD not in captured.out + captured.err + failure


async def test_a_wait_that_the_database_cannot_hold_keeps_the_steps_own_error(bench: Bench) -> None:
    """A wait strategy of the author's own, or one that has grown out of bounds."""
    process_id = await bench.run("never_again")
    assert "the device says no" in await bench.failure(process_id, "waiting")


async def test_a_retry_that_waits_for_its_authorisation_does_not_hold_up_the_commits_of_others(
    bench: Bench,
) -> None:
    """B38: the process runs, so the retry is going to be refused anyway; its neighbours have nothing to do with it."""
    runner = await bench.runner()
    held = await bench.start("asks")
    others = [await bench.start("plain") for _ in range(20)]
    for one in (held, *others):
        await runner.take(await bench.command(one))
    asking = asyncio.create_task(bench.handlers.take_command(resume(held)))
    await asyncio.wait_for(EVENTS["asked"].wait(), 60)
    EVENTS["gate"].set()
    try:
        await until(lambda: runner.running <= 1, "the neighbours have committed")
        completed = "SELECT count(*) FROM processes WHERE status = 'completed' AND process_id = ANY($1)"
        assert await bench.database.pool.fetchval(completed, others) == len(others)
    finally:
        EVENTS["answer"].set()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: runner.running == 0, "all have ended")


async def test_giving_claims_back_while_the_broker_is_away_does_not_silence_the_heart(bench: Bench) -> None:
    """The answer to a claim of several steps was lost, and the broker is away: a living consumer must not look dead."""
    away = Publisher(bench.address, Topology.of("classic"), 1.0)  # never opened
    runner = await bench.runner(publisher=away, presumed_dead_after=2, interval=0.2)
    pool = bench.database.pool
    for _ in range(4):
        await pool.execute(
            "UPDATE processes SET attempt = 1, claimed_by = $1, claimed_at = now() - interval '10 s' WHERE process_id = $2",
            bench.heartbeat.consumer_id,
            await bench.start("plain"),
        )
    beating = asyncio.create_task(bench.heartbeat.run(runner.compare))
    beats: set[object] = set()

    async def given_back() -> bool:
        beats.add(await pool.fetchval("SELECT seen_at FROM consumers"))
        return not await pool.fetchval("SELECT count(*) FROM processes WHERE claimed_by IS NOT NULL")

    await until(given_back, "all claims are given back")
    await bench.heartbeat.stop()
    await beating
    assert len(beats) > 3, "presumed dead after 2 s, though nothing is wrong with it"


async def test_a_suspect_that_comes_while_enough_are_claimed_holds_no_delivery_and_comes_again_later(
    bench: Bench,
) -> None:
    """Issue 9, 6c: the queue is free for other work, and no copies of the command gather in it."""
    runner = await bench.runner(suspects=0)
    process_id = await bench.start("plain")
    await bench.database.pool.execute("UPDATE processes SET lost = 1 WHERE process_id = $1", process_id)
    await runner.take(await bench.command(process_id))
    row = await bench.row(process_id)
    assert (runner.running, row["claimed_by"], row["attempt"]) == (0, None, 0)
    seconds = await bench.database.pool.fetchval("SELECT EXTRACT(EPOCH FROM $1 - now())::float8", row["due_at"])
    assert seconds > 6
    EVENTS["gate"].set()
    await bench.run("plain", runner)
