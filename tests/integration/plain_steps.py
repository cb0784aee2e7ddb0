"""A plain function run as a step's: in a thread, with the synchronous session of the step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from orchestrator import user_code
from orchestrator.db.session import Database
from orchestrator.db.step_session import StepSession
from orchestrator.threads import Threads
from tests.integration.waiting import until

T = TypeVar("T")


async def run_plain(
    session: StepSession, function: Callable[[Session], object], threads: Threads, *, seconds: float = 60
) -> object:
    """Call a plain function with the step's session, and return its outcome as :func:`orchestrator.user_code.run` does."""
    return await user_code.run(
        lambda: function(session.sync_session), is_async=False, seconds=seconds, what="the step", threads=threads
    )


async def result_of(session: StepSession, function: Callable[[Session], T], threads: Threads) -> T:
    """Call a plain function with the step's session, and return or raise what came of it."""
    outcome = await run_plain(session, function, threads)
    if isinstance(outcome, user_code.Raised):
        raise outcome.error
    return outcome  # type: ignore[return-value]  # it is neither late nor cancelled


async def overrun(session: StepSession, function: Callable[[Session], object], threads: Threads) -> None:
    """Call a plain function with the step's session, and cancel it, as at its timeout, when it sets what it is given there.

    The function gets an event in ``session.info["entered"]``.
    """
    entered = session.sync_session.info["entered"] = threading.Event()
    running = asyncio.create_task(run_plain(session, function, threads))
    await until(entered.is_set, "the function is where it is cancelled")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def commit(session: StepSession) -> None:
    """Commit as the engine does when the step has succeeded."""
    await session.hand_over()
    assert await session.mark_is_intact()
    await session.conclude()


@asynccontextmanager
async def step_session(database: Database) -> AsyncIterator[StepSession]:
    """Provide the session of one step."""
    assert isinstance(database.engine, AsyncEngine)
    session = StepSession(database.engine)
    try:
        yield session
    finally:
        await session.discard()
