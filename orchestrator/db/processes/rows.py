"""Read process rows as values of the core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.bases import WHOLE
from orchestrator.db.session import DriverPool
from orchestrator.engine.process import Process
from orchestrator.engine.state import read_object
from orchestrator.errors import NotFoundError
from orchestrator.types import ProcessStatus, State

COLUMNS_BUT_STATE = """p.process_id, p.workflow, p.status, p.position, p.step, p.entered, p.attempt, p.sequence, p.failures,
          p.lost, p.interruptions, p.crashes, p.rewinds, p.started_by, p.actor, p.assignee, p.plan"""
COLUMNS = f"{COLUMNS_BUT_STATE}, {WHOLE}::text AS state"
"""SQL: the columns of ``processes AS p`` from which :func:`build_process` builds a process."""

_LOAD = f"SELECT {COLUMNS} FROM processes AS p WHERE p.process_id = :process_id"  # noqa: S608 - built from constants
_LOAD_ONLY = text(_LOAD)
# Log rows of other transactions may refer to the process while it is locked.
_LOAD_AND_LOCK = text(f"{_LOAD} FOR NO KEY UPDATE")


_WORKFLOW = "SELECT workflow FROM processes WHERE process_id = $1"


class RowByName(Protocol):
    """A row of SQLAlchemy or asyncpg, indexed by column names."""

    def __getitem__(self, name: str, /) -> Any: ...


def build_process(row: RowByName) -> Process:
    """Return the process in a row that has :data:`COLUMNS`. Unreadable values are listed in ``unreadable``, without an error.

    Several rows are read together, and a bad one must not harm the others.
    """
    return build_process_with(row, *read_object(row["state"]))


def build_process_with(row: RowByName, state: State, unreadable: Mapping[str, str]) -> Process:
    """Return the process in a row that has :data:`COLUMNS_BUT_STATE`."""
    return Process(
        process_id=row["process_id"],
        workflow=row["workflow"],
        status=ProcessStatus(row["status"]),
        position=row["position"],
        step=row["step"],
        entered=row["entered"],
        attempt=row["attempt"],
        sequence=row["sequence"],
        failures=row["failures"],
        lost=row["lost"],
        interruptions=row["interruptions"],
        crashes=row["crashes"],
        rewinds=row["rewinds"],
        state=state,
        unreadable=unreadable,
        started_by=row["started_by"],
        actor=row["actor"],
        assignee=row["assignee"],
        plan=row["plan"],
    )


async def load_process(session: AsyncSession, process_id: UUID, *, lock: bool = False) -> Process:
    """Return a process; with ``lock``, keep others from moving it until the transaction ends.

    Locks are taken in the order process, then callback, everywhere.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.execute(_LOAD_AND_LOCK if lock else _LOAD_ONLY, {"process_id": process_id})
    row = found.mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return build_process(row)


async def find_workflow(pool: DriverPool, process_id: UUID) -> str | None:
    """Return the name of a process's workflow; ``None`` when there is no such process."""
    found: str | None = await pool.fetchval(_WORKFLOW, process_id)
    return found
