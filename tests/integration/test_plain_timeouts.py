"""Plain functions that run too long: their connections come back whole, and nothing of them is stored."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from orchestrator.db.session import Database
from orchestrator.threads import Threads
from orchestrator.user_code import OVERDUE, Raised
from tests.integration.plain_steps import commit, overrun, result_of, run_plain, step_session
from tests.integration.step_sessions import Item, checked_out, guard, names
from tests.integration.waiting import until

STEPS, AT_ONCE = 200, 12

IDLE = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"""


@asynccontextmanager
async def _database(url: str, pool_size: int) -> AsyncIterator[Database]:
    database = Database(url, pool_size=pool_size, connect_timeout=5, application_name="tests")
    await database.open()
    try:
        yield await guard(database)
    finally:
        await database.close()


@pytest.fixture
def threads() -> Iterator[Threads]:
    with Threads("step", AT_ONCE, spare=STEPS) as threads:
        yield threads


async def _is_whole(database: Database) -> None:
    """Wait until nothing is left of steps that have ended: no connection is taken, and no transaction is open."""

    async def nothing_left() -> bool:
        return checked_out(database) == 0 and await database.pool.fetchval(IDLE) == 0

    await until(nothing_left, "no connection is held")


@pytest.mark.parametrize("debug", [False, True], ids=["as in production", "in asyncio's debug mode"])
async def test_of_many_steps_with_random_timeouts_exactly_those_are_stored_that_succeeded(
    database_url: str, threads: Threads, *, debug: bool
) -> None:
    """Timeouts fall inside queries, between them and while a connection is taken.

    In the debug mode asyncio refuses whatever touches the event loop from a thread.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 60
    chance = random.Random(7)
    places = asyncio.Semaphore(AT_ONCE)
    stored, raised = set(), list[BaseException]()

    async def run_step(database: Database, number: int) -> None:
        pauses = [chance.uniform(0, 0.02) for _ in range(4)]
        seconds = chance.choice([chance.uniform(0, 0.06), 60])

        def author(session: Session) -> None:
            session.add(Item(number=number, name=str(number)))
            session.flush()
            for pause in pauses:
                session.execute(select(func.pg_sleep(pause)))
                time.sleep(pause)
            with session.begin_nested():
                session.get(Item, number, populate_existing=True)

        async with places, step_session(database) as session:
            outcome = await run_plain(session, author, threads, seconds=seconds)
            if isinstance(outcome, Raised):
                raised.append(outcome.error)
            elif outcome is not OVERDUE:
                await commit(session)
                stored.add(str(number))

    async with _database(database_url, 4) as database:
        await asyncio.gather(*(run_step(database, number) for number in range(STEPS)))
        await until(lambda: threads.left_behind == 0, "the threads have ended")
        await _is_whole(database)
        assert raised == []
        assert set(await names(database)) == stored
        assert STEPS / 4 < len(stored) < STEPS


async def test_a_query_that_outlasts_its_step_is_cancelled_whatever_the_author_catches(
    database_url: str, threads: Threads
) -> None:
    """The function is not told by an ``Exception``, and its thread goes on only when the query has left the wire."""
    went_on = threading.Event()

    def author(session: Session) -> None:
        session.add(Item(number=1, name="one"))
        session.flush()
        with suppress(Exception):
            session.execute(select(func.pg_sleep(3600)))
        went_on.set()
        session.add(Item(number=2, name="two"))

    async with _database(database_url, 2) as database:
        async with step_session(database) as session:
            assert await run_plain(session, author, threads, seconds=0.2) is OVERDUE
        await _is_whole(database)
        assert not went_on.is_set()
        assert threads.left_behind == 0
        assert await names(database) == []
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()"
        )
        assert await database.pool.fetchval(running) == 0


async def test_a_thread_that_sleeps_beyond_its_timeout_holds_no_connection(database_url: str, threads: Threads) -> None:
    """The next step goes on with the only connection, while the thread of the last one sleeps."""
    release = threading.Event()

    def sleeper(session: Session) -> None:
        session.execute(text("INSERT INTO items VALUES (1, 'late')"))
        session.info["entered"].set()
        release.wait(60)

    async with _database(database_url, 1) as database:
        async with step_session(database) as session:
            await overrun(session, sleeper, threads)
        async with step_session(database) as session:
            await result_of(
                session, lambda session: session.execute(text("INSERT INTO items VALUES (2, 'next')")), threads
            )
            await commit(session)
        assert threads.left_behind == 1
        release.set()
        await until(lambda: threads.left_behind == 0, "the thread has ended")
        await _is_whole(database)
        assert await names(database) == ["next"]


async def test_who_waits_for_the_only_connection_goes_on_when_its_backend_is_killed(
    database_url: str, threads: Threads
) -> None:
    """The plain function gives the connection back from its thread, which wakes nobody unless the event loop does it."""

    async def wait_in_line(database: Database) -> int:
        async with step_session(database) as session:
            return int(await session.scalar(select(1)) or 0)

    async with _database(database_url, 1) as database:
        async with step_session(database) as session:
            entered, release = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def killed(session: Session) -> None:
                session.execute(text("SELECT 1"))
                loop.call_soon_threadsafe(entered.set)
                release.wait(60)
                session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

            running = asyncio.create_task(run_plain(session, killed, threads))
            await entered.wait()
            waiting = asyncio.create_task(wait_in_line(database))
            assert checked_out(database) == 1
            release.set()
            outcome = await running
            assert isinstance(outcome, Raised)
            assert isinstance(outcome.error, DBAPIError)
            await session.discard()
            assert await asyncio.wait_for(waiting, 60) == 1
        await _is_whole(database)


async def test_a_cancelled_wait_for_a_connection_costs_no_connection(database_url: str, threads: Threads) -> None:
    """The pool is disposed of in between: its successor is of the same kind."""
    async with _database(database_url, 1) as database:
        await database.engine.dispose()
        async with step_session(database) as holder:
            await holder.execute(text("SELECT 1"))
            for _ in range(5):
                async with step_session(database) as session:
                    outcome = await run_plain(session, lambda one: one.execute(text("SELECT 1")), threads, seconds=0.05)
                    assert outcome is OVERDUE
        await _is_whole(database)
        async with step_session(database) as session:
            assert await result_of(session, lambda one: one.scalar(select(1)), threads) == 1


@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up")
async def test_a_connection_that_is_forgotten_comes_back_whichever_thread_finds_it(
    database_url: str, threads: Threads
) -> None:
    """Python's garbage collection runs in any thread; asyncio's debug mode refuses what touches the event loop from there."""
    asyncio.get_running_loop().set_debug(True)

    def forget(session: Session) -> None:
        bind = session.get_bind()
        assert isinstance(bind, Engine)
        cycle: list[object] = [bind.connect()]
        cycle.append(cycle)

    async def wait_in_line(database: Database) -> int:
        async with step_session(database) as session:
            return int(await session.scalar(select(1)) or 0)

    async with _database(database_url, 1) as database:
        gc.disable()
        try:
            async with step_session(database) as session:
                await result_of(session, forget, threads)
            del session
            waiting = asyncio.create_task(wait_in_line(database))
            await asyncio.sleep(0)
            assert checked_out(database) == 1
            await asyncio.wrap_future(threads.submit(gc.collect))
        finally:
            gc.enable()
        assert await asyncio.wait_for(waiting, 60) == 1
        await _is_whole(database)
