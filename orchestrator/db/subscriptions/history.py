"""What has happened to a subscription, page by page: every process that touched it, step by step, and every change of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Row, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.newest import ProcessSummary
from orchestrator.db.processes.queries import read_logs, read_processes
from orchestrator.db.subscriptions.change_keys import Changes, Places
from orchestrator.db.tables import (
    ProcessRow,
    ProcessSubscriptionRow,
    SubscriptionChangeRow,
    SubscriptionRow,
    as_text,
    columns_of,
)
from orchestrator.engine.log import LogEntry
from orchestrator.engine.state import read_object
from orchestrator.errors import NotFoundError
from orchestrator.types import JSON

PAGE = 30
"""The default number of processes and other changes on a page."""

_PAGE = """
    SELECT process_id, change_id
      FROM ((SELECT process.started_at AS moment, process.process_id, NULL AS change_id
               FROM processes_subscriptions link JOIN processes process USING (process_id)
              WHERE link.subscription_id = :subscription_id AND {older_process}
              ORDER BY process.started_at DESC, process.process_id DESC
              LIMIT :limit)
            UNION ALL
            (SELECT change.at, NULL, change.change_id
               FROM subscription_changes change
              WHERE change.subscription_id = :subscription_id AND {older_change}
                AND NOT EXISTS (SELECT FROM processes_subscriptions link
                                 WHERE link.process_id = change.process_id
                                   AND link.subscription_id = change.subscription_id)
              ORDER BY change.at DESC, change.change_id DESC
              LIMIT :limit)) found
     ORDER BY moment DESC, process_id DESC NULLS FIRST, change_id DESC
     LIMIT :limit
"""

# Where blocks have stood, up to a change. Comparing whole entries first halves the time.
_LINKS = text(
    """
    SELECT change.change_id, jsonb_object_agg(entry.key, entry.value) AS changes
      FROM subscription_changes change CROSS JOIN LATERAL jsonb_each(change.changes) entry
     WHERE change.subscription_id = :subscription_id AND change.change_id <= :last
       AND CAST(change.changes AS text) LIKE '%/%' AND entry.key LIKE '%/%'
     GROUP BY change.change_id
    """
).columns(change_id=BigInteger, changes=JSONB)


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """One change of a subscription.

    Args:
        version: of the subscription afterwards.
        process_id, step, attempt: what made it; ``None`` for a change by an operator or a migration.
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
    """A page of it, the oldest first.

    Args:
        other_changes: made by no process, or by one that has been deleted since.
        before: the first of this page, if more has happened before it: a process, or the number of one of the other changes.
            Given to :func:`read_history`, it is where the page before this one ends.
    """

    subscription_id: UUID
    processes: tuple[ProcessHistory, ...]
    other_changes: tuple[SubscriptionChange, ...]
    before: UUID | int | None = None

    def timeline(self) -> list[ProcessHistory | SubscriptionChange]:
        """Return processes and other changes in one list, in the order in which they began."""
        return sorted([*self.processes, *self.other_changes], key=_sort_key)


async def read_history(
    session: AsyncSession, subscription_id: UUID, *, limit: int = PAGE, before: UUID | int | None = None
) -> SubscriptionHistory:
    """Return the last page of what has happened to a subscription.

    What is read is one page: ``limit`` processes and other changes, each process with its whole log.

    Args:
        before: only what has happened before this process, or before the change of this number.

    Raises:
        NotFoundError: there is no such subscription, or ``before`` is no part of its history.
    """
    exists = select(SubscriptionRow.subscription_id).where(SubscriptionRow.subscription_id == subscription_id)
    if await session.scalar(exists) is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    # If one more than is shown exists, there is an earlier page.
    found = await _read_page(session, subscription_id, before, limit + 1)
    shown = found[:limit]
    process_ids = [row.process_id for row in shown if row.process_id is not None]
    change_ids = [row.change_id for row in shown if row.process_id is None]
    processes = await read_processes(session, process_ids)
    logs = await read_logs(session, process_ids)
    row = SubscriptionChangeRow
    changes = await _read_changes(
        session, subscription_id, row.process_id.in_(process_ids) | row.change_id.in_(change_ids)
    )
    others = [change for change in changes if change.change_id in change_ids]
    by_process: dict[UUID | None, list[SubscriptionChange]] = defaultdict(list)
    for change in changes:
        by_process[change.process_id].append(change)
    return SubscriptionHistory(
        subscription_id,
        tuple(
            ProcessHistory(process, tuple(logs[process.process_id]), tuple(by_process[process.process_id]))
            for process in processes
        ),
        tuple(others),
        before=(shown[-1].process_id or shown[-1].change_id) if len(found) > limit else None,
    )


def _sort_key(one: ProcessHistory | SubscriptionChange) -> tuple[datetime, bool, int]:
    """Return the place in the order of :data:`_PAGE`."""
    if isinstance(one, ProcessHistory):
        return one.process.started_at, False, one.process.process_id.int
    return one.at, True, one.change_id


async def _read_page(
    session: AsyncSession, subscription_id: UUID, before: UUID | int | None, limit: int
) -> Sequence[Row[tuple[UUID | None, int | None]]]:
    """Return (process, ``None``) and (``None``, change) by the moment when they began, the last first."""
    older_process = older_change = "true"
    values: dict[str, object] = {"subscription_id": subscription_id, "limit": limit}
    if before is not None:
        values |= {"before": before, "moment": await _find_moment(session, subscription_id, before)}
        # Of one moment, processes stand before changes.
        if isinstance(before, UUID):
            older_process = "(process.started_at, process.process_id) < (:moment, :before)"
            older_change = "change.at < :moment"
        else:
            older_process = "process.started_at <= :moment"
            older_change = "(change.at, change.change_id) < (:moment, :before)"
    page = text(_PAGE.format(older_process=older_process, older_change=older_change))
    return (await session.execute(page, values)).all()


async def _find_moment(session: AsyncSession, subscription_id: UUID, before: UUID | int) -> datetime:
    links, changes = ProcessSubscriptionRow, SubscriptionChangeRow
    if isinstance(before, UUID):
        query = select(ProcessRow.started_at).join(links, links.process_id == ProcessRow.process_id)
        query = query.where(links.subscription_id == subscription_id, links.process_id == before)
    else:
        query = select(changes.at).where(changes.subscription_id == subscription_id, changes.change_id == before)
    moment = await session.scalar(query)
    if moment is None:
        what = f"the process {before}" if isinstance(before, UUID) else f"the change {before}"
        raise NotFoundError(f"{what} is no part of the history of subscription {subscription_id}")
    return moment


async def _read_changes(
    session: AsyncSession, subscription_id: UUID, which: ColumnElement[bool]
) -> list[SubscriptionChange]:
    """Return changes of a subscription by path: as its blocks stood then."""
    row = SubscriptionChangeRow
    columns = columns_of(row, SubscriptionChange, changes=as_text(row.changes))
    query = select(*columns).where(row.subscription_id == subscription_id, which)
    rows = await session.execute(query.order_by(row.change_id))
    read = (SubscriptionChange(*values) for values in rows)
    shown = {one.change_id: replace(one, changes=_read_pairs(str(one.changes))) for one in read}
    links: dict[int, Changes] = {}
    if any("/" in key or "." in key for one in shown.values() for key in one.changes):
        given = {"subscription_id": subscription_id, "last": max(shown)}
        links = {row.change_id: row.changes for row in await session.execute(_LINKS, given)}
    places, found = Places(), []
    for change_id in sorted({*links, *shown}):
        if change_id not in shown:
            places.apply(links[change_id])
            continue
        one = shown[change_id]
        found.append(replace(one, changes=places.show(one.changes)))
    return found


def _read_pairs(text: str) -> dict[str, Any]:
    changes, unreadable = read_object(text)
    return {**changes, **{key: [None, f"[cannot be read: {reason}]"] for key, reason in unreadable.items()}}
