"""Forms that hold what they get for long, or lose it."""

from __future__ import annotations

import contextlib
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.forms import FormPage
from orchestrator.workflow import StepList, done, init, step, workflow
from tests.acceptance.workflows.lab import note, wait_at

LOCK = 20_131
"""The number of the advisory lock for which a form waits in a query."""

_LOSE = text("SELECT pg_terminate_backend(pg_backend_pid())")


class NoPage(FormPage):
    """Nothing to fill in."""


@step("Take note")
async def take_note(process_id: UUID) -> None:
    note(process_id, "noted")


async def form_that_waits(session: AsyncSession) -> type[FormPage]:
    """Hold the session while waiting for something else."""
    await session.execute(text("SELECT 1"))
    note("form", "waits")
    await wait_at("form")
    return NoPage


@workflow("Its form holds a session", initial_input_form=form_that_waits)
def asks_for_long() -> StepList:
    return init >> take_note >> done


def form_in_a_query(session: Session) -> type[FormPage]:
    """Wait in a query."""
    note("form", "queries")
    session.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    return NoPage


@workflow("Its form waits in a query", initial_input_form=form_in_a_query)
def asks_in_a_query() -> StepList:
    return init >> take_note >> done


def form_that_loses(session: Session) -> type[FormPage]:
    """Have the server end the connection."""
    note("form", "loses")
    session.execute(_LOSE)
    return NoPage


@workflow("Its form loses its connection", initial_input_form=form_that_loses)
def loses_its_connection() -> StepList:
    return init >> take_note >> done


def form_that_hides(session: Session) -> type[FormPage]:
    """As above, and go on as if nothing had happened."""
    note("form", "hides")
    with contextlib.suppress(DBAPIError):
        session.execute(_LOSE)
    return NoPage


@workflow("Its form hides that it has lost its connection", initial_input_form=form_that_hides)
def hides_its_loss() -> StepList:
    return init >> take_note >> done
