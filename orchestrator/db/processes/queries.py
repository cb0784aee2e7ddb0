"""Read processes and their logs, for people. One process is found by its key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Select, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.bases import WHOLE
from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.db.processes.secrets import find_secret_keys, hide
from orchestrator.db.tables import LogRow, ProcessRow, as_text, columns_of
from orchestrator.engine.log import EntryName, LogEntry, count_tries
from orchestrator.engine.rewind import PastEntry
from orchestrator.engine.state import read_leniently, read_object
from orchestrator.errors import NotFoundError
from orchestrator.registry import list_secret_keys
from orchestrator.types import State

_STATE = text(f"SELECT {WHOLE}::text FROM processes AS p WHERE p.process_id = :process_id")  # noqa: S608 - built from constants


async def read_processes(session: AsyncSession, process_ids: Sequence[UUID]) -> list[ProcessSummary]:
    """Return these processes without their states, the oldest first."""
    query = _summaries().where(ProcessRow.process_id.in_(process_ids))
    query = query.order_by(ProcessRow.started_at, ProcessRow.process_id)
    return [ProcessSummary(*row) for row in await session.execute(query)]


async def read_process(session: AsyncSession, process_id: UUID) -> ProcessSummary:
    """Return one process without its state.

    Raises:
        NotFoundError.
    """
    row = (await session.execute(_summaries().where(ProcessRow.process_id == process_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no process {process_id}")
    return ProcessSummary(*row)


async def read_state(session: AsyncSession, process_id: UUID) -> State:
    """Return a process's present state, with a remark in place of each value that cannot be read, and without secrets.

    Raises:
        NotFoundError.
    """
    state = await session.scalar(_STATE, {"process_id": process_id})
    if state is None:
        raise NotFoundError(f"there is no process {process_id}")
    return hide(read_leniently(state), await find_secret_keys(session, process_id))


async def read_log(session: AsyncSession, process_id: UUID, *, after: int = 0) -> list[LogEntry]:
    """Return the entries of a process's log after entry number ``after``, in order, without secrets."""
    secret = await find_secret_keys(session, process_id)
    query = _entries().where(LogRow.process_id == process_id, LogRow.sequence > after).order_by(LogRow.sequence)
    return [_entry(row, secret) for _, *row in await session.execute(query)]


async def read_tries(session: AsyncSession, process_id: UUID) -> dict[int, int]:
    """Return for each entry of a process's log, by number, which try of its step it is; read nothing else of the log."""
    names = select(LogRow.sequence, LogRow.kind, LogRow.name, LogRow.attempt)
    query = names.where(LogRow.process_id == process_id).order_by(LogRow.sequence)
    return count_tries([EntryName(*row) for row in await session.execute(query)])


async def read_past(session: AsyncSession, process_id: UUID) -> list[PastEntry]:
    """Return the whole log of a process for the engine, which must know what cannot be read."""
    query = (
        select(*columns_of(LogRow, PastEntry, delta=as_text(LogRow.delta), unreadable=literal_column("NULL")))
        .where(LogRow.process_id == process_id)
        .order_by(LogRow.sequence)
    )
    return [_past_entry(PastEntry(*row)) for row in await session.execute(query)]


async def read_notes(session: AsyncSession, process_id: UUID, name: str, attempt: int) -> Sequence[str]:
    """Return the notes of the entries of this name in a process's log that were written at this attempt."""
    query = select(LogRow.note).where(
        LogRow.process_id == process_id, LogRow.name == name, LogRow.attempt == attempt, LogRow.kind == "process"
    )
    return [note or "" for note in await session.scalars(query)]


async def read_logs(session: AsyncSession, process_ids: Sequence[UUID]) -> dict[UUID, list[LogEntry]]:
    """Return the whole logs of several processes, in one statement, without secrets."""
    keys = list_secret_keys()
    secret = (
        {one.process_id: keys.get(one.workflow, ()) for one in await read_processes(session, process_ids)}
        if keys
        else {}
    )
    query = _entries().where(LogRow.process_id.in_(process_ids)).order_by(LogRow.process_id, LogRow.sequence)
    logs: dict[UUID, list[LogEntry]] = {process_id: [] for process_id in process_ids}
    for process_id, *row in await session.execute(query):
        logs[process_id].append(_entry(row, secret.get(process_id, ())))
    return logs


def _summaries() -> Select[*tuple[Any, ...]]:
    return select(*columns_of(ProcessRow, ProcessSummary, claimed=ProcessRow.claimed_by.is_not(None)))


def _entries() -> Select[*tuple[Any, ...]]:
    written = {"delta": as_text(LogRow.delta), "failure": as_text(LogRow.failure)}
    return select(LogRow.process_id, *columns_of(LogRow, LogEntry, **written))


def _past_entry(entry: PastEntry) -> PastEntry:
    delta, unreadable = read_object(str(entry.delta))
    return replace(entry, delta=delta, removed=tuple(entry.removed or ()), unreadable=unreadable)


def _entry(row: Sequence[Any], secret: Collection[str]) -> LogEntry:
    entry = LogEntry(*row)
    return replace(
        entry,
        delta=hide(read_leniently(str(entry.delta)), secret),
        removed=tuple(entry.removed or ()),
        failure=None if entry.failure is None else read_leniently(str(entry.failure)),
    )
