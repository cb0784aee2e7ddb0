"""Steps whose attempts are lost: with their connection, or with the program that runs them."""

from __future__ import annotations

import asyncio
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import effect, is_open, note, wait_at


@step("Lose the connection")
async def lose_connection(session: AsyncSession, process_id: UUID) -> None:
    await effect(session, process_id, "Lose the connection")
    note(process_id, "writing")
    if not is_open(f"connected-{process_id}"):
        await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


@workflow("Is cut off from the database")
def is_cut_off() -> StepList:
    return init >> lose_connection >> done


@step("Rest")
async def rest(process_id: UUID) -> None:
    note(process_id, "resting")
    try:
        await wait_at("morning")
    except asyncio.CancelledError:
        note(process_id, "cancelled")
        raise


@workflow("Rests until a gate is opened")
def rests() -> StepList:
    return init >> rest >> done
