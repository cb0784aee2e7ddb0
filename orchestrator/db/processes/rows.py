"""Reading processes, and storing decisions about them in a session's transaction."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.advance import Advance, advance
from orchestrator.db.session import driver
from orchestrator.db.tables import ProcessRow
from orchestrator.engine.decision import Decision
from orchestrator.engine.process import Process
from orchestrator.errors import NotFoundError
from orchestrator.types import ProcessStatus


async def load(session: AsyncSession, process_id: UUID, *, lock: bool = False) -> Process:
    """Read a process; with ``lock``, keep others from moving it until the transaction ends.

    Locks are taken in the order process, then callback, everywhere.

    Raises:
        NotFoundError: there is none.
    """
    # FOR NO KEY UPDATE: log rows of other transactions may still refer to the process while it is held.
    query = select(ProcessRow).where(ProcessRow.process_id == process_id).execution_options(populate_existing=True)
    row = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return from_row(row)


async def store(session: AsyncSession, before: Process, decision: Decision, *, due_in: float | None) -> datetime:
    """Store a decision about a process that :func:`load` has locked in this session's transaction."""
    at = await advance(await driver(session), Advance(before, decision, due_in))
    assert at is not None, "the process was locked"  # noqa: S101 - a programming error, not a user's
    return at


def from_row(row: ProcessRow) -> Process:
    """The core's view of a row."""
    return Process(
        process_id=row.process_id,
        workflow=row.workflow,
        status=ProcessStatus(row.status),
        position=row.position,
        step=row.step,
        entered=row.entered,
        attempt=row.attempt,
        sequence=row.sequence,
        failures=row.failures,
        lost=row.lost,
        rewinds=row.rewinds,
        state=row.state,
        started_by=row.started_by,
        actor=row.actor,
        assignee=row.assignee,
    )


def blank(process: Process) -> Process:
    """A process before anything has happened to it."""
    return Process(
        process_id=process.process_id,
        workflow=process.workflow,
        status=ProcessStatus.CREATED,
        position=0,
        step=None,
        attempt=0,
        sequence=0,
        state={},
        started_by=process.started_by,
        actor=process.actor,
    )
