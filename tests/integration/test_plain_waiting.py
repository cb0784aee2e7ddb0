"""A step's clock stands still while it waits for what other steps have; threads that do not end are replaced and named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from sqlalchemy import Engine, literal, select, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from orchestrator.activity import doing
from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.threads import Threads
from orchestrator.user_code import OVERDUE
from tests.integration.plain_steps import overrun, run_plain, step_session
from tests.integration.step_sessions import guard
from tests.integration.waiting import until

TIMEOUT = 2.0


@pytest.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """A database for whose steps there is one connection."""
    database = Database(database_url, pool_size=1, connect_timeout=5, application_name="tests")
    await database.open()
    yield await guard(database)
    await database.close()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


async def run_step(
    session: StepSession, function: Callable[[Session], object], threads: Threads, seconds: float = TIMEOUT
) -> object:
    """Run a plain function as a consumer runs a step's."""
    with doing("a step") as activity:
        activity.pauses = True
        return await run_plain(session, function, threads, seconds=seconds)


async def outlast_timeout() -> None:
    """Wait until a step that begins now would have run too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.5 * TIMEOUT
    await until(lambda: loop.time() > end, "the timeout would have passed")


async def test_the_clock_of_a_plain_step_stands_still_while_it_waits_for_a_thread(
    database: Database, release: threading.Event
) -> None:
    await guard(database)
    with Threads("step", 1) as threads:
        async with step_session(database) as one, step_session(database) as other:
            holding = asyncio.create_task(run_step(one, lambda _: release.wait(60), threads, 60))
            waiting = asyncio.create_task(run_step(other, lambda session: session.scalar(select(literal(2))), threads))
            await outlast_timeout()
            assert not waiting.done()
            release.set()
            assert await waiting == 2
            await holding


async def test_the_clock_of_a_step_stands_still_while_it_waits_for_its_connection(
    single: Database, release: threading.Event
) -> None:
    """And many more steps than there are connections all end."""
    with Threads("step", 8) as threads:
        holder = StepSession(single.engine)
        await holder.execute(text("SELECT 1"))

        async def read(number: int) -> object:
            async with step_session(single) as session:
                return await run_step(session, lambda session: session.scalar(select(literal(number))), threads)

        waiting = [asyncio.create_task(read(number)) for number in range(20)]
        await outlast_timeout()
        assert not any(one.done() for one in waiting)
        await holder.discard()
        assert await asyncio.gather(*waiting) == list(range(20))


async def test_a_step_that_holds_its_connection_and_waits_for_another_runs_into_its_timeout(single: Database) -> None:
    """Else two such steps would wait for each other for ever."""

    def author(session: Session) -> None:
        session.execute(text("SELECT 1"))
        bind = session.get_bind()
        assert isinstance(bind, Engine)
        bind.connect()

    with Threads("step", 1) as threads:
        async with step_session(single) as session:
            assert await run_step(session, author, threads) is OVERDUE


async def test_threads_that_hang_are_named_and_do_not_hold_up_other_steps(
    database: Database, release: threading.Event
) -> None:
    await guard(database)

    def hang(session: Session) -> None:
        session.execute(text("SELECT 1"))
        session.info["entered"].set()
        release.wait(60)

    with Threads("step", 2) as threads:
        async with step_session(database) as one, step_session(database) as other, step_session(database) as third:
            with capture_logs() as logs:
                await asyncio.gather(overrun(one, hang, threads), overrun(other, hang, threads))
            assert threads.left_behind == 2
            assert await run_step(third, lambda session: session.scalar(select(literal(3))), threads, 60) == 3
    lines = [one for one in logs if one["event"].startswith("thread left behind")]
    assert [one["what"] for one in lines] == ["the step"] * 2
    assert all("in test_threads_that_hang_are_named" in one["at"] and one["at"].endswith(".hang") for one in lines), (
        lines
    )
