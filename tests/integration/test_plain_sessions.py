"""Plain functions have the whole synchronous session, under the guards of the step's session and in its transaction."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import ForeignKey, event, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.errors import CommitNotAllowedError, ConcurrentSessionError, SessionEndedError
from orchestrator.threads import Threads
from tests.integration.plain_steps import commit, overrun, result_of, run_plain, step_session
from tests.integration.step_sessions import Base, Item, checked_out, guard, names
from tests.integration.waiting import until


class Part(Base):
    __tablename__ = "parts"

    number: Mapped[int] = mapped_column(primary_key=True)
    item_number: Mapped[int] = mapped_column(ForeignKey("items.number"))
    item: Mapped[Item] = relationship()


@pytest.fixture
async def guarded(database: Database) -> Database:
    return await guard(database)


@pytest.fixture
async def session(guarded: Database) -> AsyncIterator[StepSession]:
    async with step_session(guarded) as session:
        yield session


@pytest.fixture
def threads() -> Iterator[Threads]:
    with Threads("step", 2) as threads:
        yield threads


async def test_a_plain_function_has_the_whole_synchronous_orm(
    guarded: Database, session: StepSession, threads: Threads
) -> None:
    """Flush, get, lazy loading, savepoints and streams, all of it in the transaction of the step."""

    def author(session: Session) -> tuple[str, list[int], int]:
        session.add(Item(number=1, name="one"))
        session.flush()
        session.add(Part(number=1, item_number=1))
        session.flush()
        session.expunge_all()
        part = session.get(Part, 1)
        assert part is not None
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Item(number=2, name="one"))
        with session.begin_nested():
            session.add(Item(number=3, name="three"))
        rows = session.execute(
            text("SELECT generate_series(1, 1000)"), execution_options={"yield_per": 100, "stream_results": True}
        )
        return part.item.name, [number for (number,) in rows], session.scalar(select(func.count(Item.number))) or 0

    name, streamed, count = await result_of(session, author, threads)
    assert (name, streamed, count) == ("one", list(range(1, 1001)), 2)
    await commit(session)
    assert await names(guarded) == ["one", "three"]
    assert checked_out(guarded) == 0


async def test_what_a_plain_function_has_pending_is_stored_with_the_step(
    guarded: Database, session: StepSession, threads: Threads
) -> None:
    await result_of(session, lambda session: session.add(Item(number=1, name="one")), threads)
    assert session.used
    await commit(session)
    assert await names(guarded) == ["one"]


async def test_a_plain_function_and_the_engine_use_one_connection(session: StepSession, threads: Threads) -> None:
    """A second one would wait for the locks of the first, for ever."""
    backend = select(func.pg_backend_pid())
    in_thread = await result_of(session, lambda session: session.scalar(backend), threads)
    assert in_thread == await session.scalar(backend)


def _with_block(session: Session) -> None:
    with session.begin():
        pass


def _close_block(session: Session) -> None:
    with session:
        pass


REFUSED: dict[str, tuple[str, Callable[[Session], object]]] = {
    "commit": ("commit", lambda session: session.commit()),
    "rollback": ("roll back", lambda session: session.rollback()),
    "begin": ("begin a transaction", _with_block),
    "close": ("close its session", lambda session: session.close()),
    "with session": ("close its session", _close_block),
    "reset": ("reset its session", lambda session: session.reset()),
    "invalidate": ("invalidate its session", lambda session: session.invalidate()),
    "connection commit": ("commit its connection", lambda session: session.connection().commit()),
    "connection rollback": ("roll back its connection", lambda session: session.connection().rollback()),
    "COMMIT": ("send COMMIT", lambda session: session.execute(text("COMMIT"))),
    "comment": ("send ROLLBACK", lambda session: session.execute(text("/* why not */ ROLLBACK"))),
}


@pytest.mark.parametrize("way", REFUSED)
async def test_ending_the_transaction_is_refused_in_the_words_of_async_steps(
    guarded: Database, session: StepSession, threads: Threads, way: str
) -> None:
    what, end = REFUSED[way]

    def author(session: Session) -> None:
        session.execute(text("INSERT INTO items VALUES (1, 'one')"))
        end(session)

    with pytest.raises(CommitNotAllowedError, match=f"a step may not {what}: the engine commits"):
        await result_of(session, author, threads)
    with pytest.raises(CommitNotAllowedError):  # also of a step that swallows the refusal
        await session.hand_over()
    await session.discard()
    assert await names(guarded) == []
    assert checked_out(guarded) == 0


async def test_a_thread_that_goes_on_after_its_step_is_refused(
    guarded: Database, session: StepSession, threads: Threads
) -> None:
    release, met = threading.Event(), list[BaseException]()

    def author(session: Session) -> None:
        session.add(Item(number=1, name="one"))
        session.flush()
        session.info["entered"].set()
        release.wait(60)
        for use in (
            lambda: session.execute(text("INSERT INTO items VALUES (9, 'late')")),
            lambda: session.add(Item(number=9, name="late")),
            session.commit,
            session.connection,
            lambda: session.get(Item, 1, populate_existing=True),
        ):
            try:
                use()
            except BaseException as error:
                met.append(error)

    await overrun(session, author, threads)
    assert threads.left_behind == 1
    await session.discard()
    assert checked_out(guarded) == 0
    release.set()
    await until(lambda: threads.left_behind == 0, "the thread has ended")
    assert [type(error) for error in met] == [SessionEndedError] * 5
    assert await names(guarded) == []


async def test_a_thread_of_the_functions_own_may_not_use_the_session(session: StepSession, threads: Threads) -> None:
    def author(session: Session) -> None:
        with ThreadPoolExecutor(1) as own:
            own.submit(session.execute, text("SELECT 1")).result()

    with pytest.raises(ConcurrentSessionError, match="not for threads that the function starts"):
        await result_of(session, author, threads)


async def test_context_variables_go_into_the_events_of_the_database(session: StepSession, threads: Threads) -> None:
    variable, seen = contextvars.ContextVar("variable", default="unset"), []
    variable.set("by the engine")

    @event.listens_for(session.sync_session, "do_orm_execute")
    def see(_: object) -> None:
        seen.append(variable.get())

    def author(session: Session) -> None:
        session.execute(select(Item))
        variable.set("by the step")
        session.execute(select(Item))

    await result_of(session, author, threads)
    assert (seen, variable.get()) == (["by the engine", "by the step"], "by the engine")


async def test_a_plain_function_may_run_an_event_loop_of_its_own(session: StepSession, threads: Threads) -> None:
    """Libraries with a synchronous face do so."""

    async def inner() -> int:
        await asyncio.sleep(0)
        return 2

    def author(session: Session) -> int | None:
        return asyncio.run(inner()) + (session.scalar(select(1)) or 0)

    assert await result_of(session, author, threads) == 3


async def test_a_plain_function_that_blocks_does_not_block_the_loop(session: StepSession, threads: Threads) -> None:
    """Measured by what the loop does meanwhile, not by time."""
    turns = 0
    entered, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def author(session: Session) -> None:
        session.execute(text("SELECT 1"))
        loop.call_soon_threadsafe(entered.set)
        while not release.wait(0):
            time.sleep(0.01)

    running = asyncio.create_task(run_plain(session, author, threads))
    await entered.wait()
    while turns < 100:
        await asyncio.sleep(0)
        turns += 1
    release.set()
    assert await running is None
