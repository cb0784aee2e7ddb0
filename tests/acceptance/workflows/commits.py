"""Steps that try to end the engine's transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import CommitNotAllowedError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import Effect, StrictEffect, effect, note, wait_at

Attempt = Callable[[AsyncSession], Awaitable[object]]


async def _commit(session: AsyncSession) -> None:
    await session.commit()


async def _rollback(session: AsyncSession) -> None:
    await session.rollback()


async def _begin(session: AsyncSession) -> None:
    async with session.begin():
        pass


async def _close(session: AsyncSession) -> None:
    await session.close()


async def _connection_commit(session: AsyncSession) -> None:
    await (await session.connection()).commit()


async def _connection_rollback(session: AsyncSession) -> None:
    await (await session.connection()).rollback()


async def _sync_commit(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.commit())


async def _swallow(session: AsyncSession) -> None:
    with contextlib.suppress(CommitNotAllowedError):
        await session.commit()


async def _swallow_text(session: AsyncSession) -> None:
    with contextlib.suppress(CommitNotAllowedError):
        await session.execute(text("COMMIT"))


async def _driver_commit(session: AsyncSession) -> None:
    """Round all guards: the driver's own connection. The mark in the transaction finds it."""
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    await raw.driver_connection.execute("ROLLBACK; BEGIN")


ATTEMPTS: dict[str, Attempt] = {
    "session.commit": _commit,
    "session.rollback": _rollback,
    "session.begin": _begin,
    "session.close": _close,
    "connection.commit": _connection_commit,
    "connection.rollback": _connection_rollback,
    "run_sync commit": _sync_commit,
    "swallowed commit": _swallow,
    "swallowed text": _swallow_text,
    "the driver's own connection": _driver_commit,
}
SQL = (
    "COMMIT",
    "commit",
    "Commit Work",
    "END",
    "end transaction",
    "ROLLBACK",
    "rollback work",
    "ABORT",
    "BEGIN",
    "Start  Transaction",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "COMMIT AND CHAIN",
    "PREPARE TRANSACTION 'x'",
    "/* harmless */ COMMIT",
    "-- harmless\nCOMMIT",
    "/* one */ -- two\n ; COMMIT",
    "/* outer /* inner */ still outer */ COMMIT",
    "/* a -- b /* c */ d */ END",
    "START/**/TRANSACTION",
)


class HowPage(FormPage):
    """Which way to try."""

    how: str


def how_form() -> FormGenerator:
    """One page."""
    page = yield HowPage
    return page.model_dump()


@step("Try to commit")
async def try_to_commit(session: AsyncSession, process_id: UUID, how: str) -> dict[str, bool]:
    await effect(session, process_id, "before")
    note(process_id, "trying")
    if how in ATTEMPTS:
        await ATTEMPTS[how](session)
    else:
        await session.execute(text(how))
    session.add(Effect(process_id=process_id, step="after"))
    return {"went on": True}


@workflow("Tries to end the transaction", initial_input_form=how_form)
def tries_to_commit() -> StepList:
    return init >> try_to_commit >> done


@step("Use savepoints")
async def use_savepoints(session: AsyncSession, process_id: UUID) -> None:
    async with session.begin_nested():
        await effect(session, process_id, "in a savepoint")
    with contextlib.suppress(ZeroDivisionError):
        async with session.begin_nested():
            await effect(session, process_id, "rolled back")
            raise ZeroDivisionError
    await session.execute(text("SAVEPOINT by_hand"))
    await effect(session, process_id, "rolled back by hand")
    await session.execute(text("ROLLBACK TO SAVEPOINT by_hand"))
    with contextlib.suppress(IntegrityError):
        async with session.begin_nested():
            await session.execute(text("INSERT INTO effects (process_id, step) VALUES (:p, NULL)"), {"p": process_id})
    await effect(session, process_id, "at the end")


@workflow("Savepoints are allowed")
def uses_savepoints() -> StepList:
    return init >> use_savepoints >> done


@step("Break a constraint at the commit")
async def break_at_commit(session: AsyncSession, process_id: UUID) -> dict[str, bool]:
    await effect(session, process_id, "before the constraint")
    session.add(StrictEffect(name=str(process_id), other="there is none"))
    return {"broken": True}


@workflow("The database refuses only at the commit")
def breaks_a_constraint() -> StepList:
    return init >> break_at_commit >> done


@step("Write a row that others want")
async def write_a_row(session: AsyncSession, process_id: UUID) -> None:
    session.add(StrictEffect(name=str(process_id)))
    await session.flush()
    note(process_id, "written")
    await wait_at(f"row-{process_id}")


@workflow("A step that keeps a row to itself while it waits")
def keeps_a_row() -> StepList:
    return init >> write_a_row >> done
