"""What has happened to a subscription: every process that touched it, step by step, and every change of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.history import LogEntry, ProcessSummary
from orchestrator.db.tables import (
    LogRow,
    ProcessRow,
    ProcessSubscriptionRow,
    SubscriptionChangeRow,
    SubscriptionRow,
)
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """One change of a subscription.

    Args:
        version: of the subscription afterwards.
        process_id, step, attempt: what made it; ``None`` when a person did, outside of any process.
        changes: path of a value → what it was and what it became.
    """

    change_id: int
    version: int
    process_id: UUID | None
    step: str | None
    attempt: int | None
    author: str
    note: str | None
    at: datetime
    changes: Mapping[str, tuple[JSON, JSON]]


@dataclass(frozen=True, slots=True)
class ProcessHistory:
    """A process that touched the subscription: its whole log, and what it changed of this subscription."""

    process: ProcessSummary
    log: tuple[LogEntry, ...]
    changes: tuple[SubscriptionChange, ...]


@dataclass(frozen=True, slots=True)
class SubscriptionHistory:
    """All of it, the oldest first.

    Args:
        other_changes: made by no process, or by one that has been deleted since.
    """

    subscription_id: UUID
    processes: tuple[ProcessHistory, ...]
    other_changes: tuple[SubscriptionChange, ...]


async def history(session: AsyncSession, subscription_id: UUID) -> SubscriptionHistory:
    """Everything that has happened to a subscription, in four statements.

    Raises:
        NotFoundError: there is no such subscription.
    """
    exists = select(SubscriptionRow.subscription_id).where(SubscriptionRow.subscription_id == subscription_id)
    if await session.scalar(exists) is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    # In this order: a change is stored together with the link to its process, so what was read before has its process here.
    changes = await _changes(session, subscription_id)
    logs = await _logs(session, subscription_id)
    processes = await _processes(session, subscription_id)
    known = {process.process_id for process in processes}
    return SubscriptionHistory(
        subscription_id,
        tuple(
            ProcessHistory(process, tuple(logs[process.process_id]), tuple(changes[process.process_id]))
            for process in processes
        ),
        tuple(
            sorted(
                (change for process_id, made in changes.items() if process_id not in known for change in made),
                key=lambda change: change.change_id,
            )
        ),
    )


async def _processes(session: AsyncSession, subscription_id: UUID) -> list[ProcessSummary]:
    columns = [
        ProcessRow.claimed_by.is_not(None) if name == "claimed" else getattr(ProcessRow, name)
        for name in ProcessSummary.__dataclass_fields__
    ]
    query = (
        select(*columns)
        .join(ProcessSubscriptionRow, ProcessSubscriptionRow.process_id == ProcessRow.process_id)
        .where(ProcessSubscriptionRow.subscription_id == subscription_id)
        .order_by(ProcessRow.started_at, ProcessRow.process_id)
    )
    return [ProcessSummary(*row) for row in await session.execute(query)]


async def _logs(session: AsyncSession, subscription_id: UUID) -> Mapping[UUID, list[LogEntry]]:
    query = (
        select(LogRow)
        .join(ProcessSubscriptionRow, ProcessSubscriptionRow.process_id == LogRow.process_id)
        .where(ProcessSubscriptionRow.subscription_id == subscription_id)
        .order_by(LogRow.process_id, LogRow.sequence)
    )
    found: dict[UUID, list[LogEntry]] = defaultdict(list)
    for row in await session.scalars(query):
        fields: dict[str, Any] = {name: getattr(row, name) for name in LogEntry.__dataclass_fields__}
        found[row.process_id].append(LogEntry(**fields | {"removed": tuple(row.removed or ())}))
    return found


async def _changes(session: AsyncSession, subscription_id: UUID) -> Mapping[UUID | None, list[SubscriptionChange]]:
    query = (
        select(SubscriptionChangeRow)
        .where(SubscriptionChangeRow.subscription_id == subscription_id)
        .order_by(SubscriptionChangeRow.change_id)
    )
    found: dict[UUID | None, list[SubscriptionChange]] = defaultdict(list)
    for row in await session.scalars(query):
        fields: dict[str, Any] = {name: getattr(row, name) for name in SubscriptionChange.__dataclass_fields__}
        pairs = {path: (old, new) for path, (old, new) in row.changes.items()}
        found[row.process_id].append(SubscriptionChange(**fields | {"changes": pairs}))
    return found
