"""The lock of a subscription – ``insync = false`` and the process that holds it – and which processes have touched it.

Each of these is one statement, so of two processes that want the lock at the same instant the database lets one have it:
the second waits for the first one's commit and then finds ``insync`` false.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import NotFoundError

_LOCK = """
UPDATE subscriptions SET insync = false, locked_by = :process_id, updated_at = now()
 WHERE subscription_id = :subscription_id AND (insync OR locked_by = :process_id{or_abandoned})
RETURNING version
"""
_OR_ABANDONED = """
     OR NOT EXISTS (SELECT FROM processes p WHERE p.process_id = subscriptions.locked_by
                                              AND p.status NOT IN ('completed', 'aborted'))"""
_TAKE = text(_LOCK.format(or_abandoned=""))
_TAKE_OVER = text(_LOCK.format(or_abandoned=_OR_ABANDONED))
_RELEASE = text(
    """
    UPDATE subscriptions SET insync = true, locked_by = NULL, updated_at = now()
     WHERE locked_by = :process_id
    RETURNING subscription_id
    """
)
_READ_LOCK = text(
    """
    SELECT s.insync, s.locked_by, p.workflow, p.status
      FROM subscriptions s LEFT JOIN processes p ON p.process_id = s.locked_by
     WHERE s.subscription_id = :subscription_id
    """
)
_LIST_LOCKED = text("SELECT subscription_id FROM subscriptions WHERE locked_by = :process_id ORDER BY subscription_id")
_LINK = text(
    """
    INSERT INTO processes_subscriptions (process_id, subscription_id)
    SELECT :process_id, subscription_id FROM subscriptions WHERE subscription_id = ANY(:subscription_ids)
    ON CONFLICT DO NOTHING
    """
)


# Rows of other transactions may refer to the subscription while it is locked.
_LOCK_ROW = text("SELECT subscription_id FROM subscriptions WHERE subscription_id = :subscription_id FOR NO KEY UPDATE")
_MARK_IN_SYNC = text(
    """
    WITH changed AS (
        UPDATE subscriptions SET insync = true, locked_by = NULL
         WHERE subscription_id = :subscription_id
        RETURNING subscription_id, version
    )
    INSERT INTO subscription_changes (subscription_id, version, author, changes, note)
    SELECT subscription_id, version, :author, '{"insync": [false, true]}', :note FROM changed
    """
)


@dataclass(frozen=True, slots=True)
class LockState:
    """Whether a subscription is in sync, and which process holds it if it is not.

    Args:
        process_id: ``None`` when it is in sync, or out of sync without a process that holds it.
    """

    insync: bool
    process_id: UUID | None
    workflow: str | None
    status: str | None

    def __str__(self) -> str:
        if self.insync:
            return "it is in sync"
        if self.process_id is None:
            return "it is out of sync, and no process holds it"
        return f"the process {self.process_id} ({self.workflow}, {self.status}) holds it"


async def take_lock(session: AsyncSession, subscription_id: UUID, process_id: UUID, *, take_over: bool = False) -> bool:
    """Set a subscription out of sync for a process; repeating it is harmless.

    Args:
        take_over: also when it is out of sync already, unless an unfinished process holds it.

    Returns:
        Whether the process holds the lock now.
    """
    statement = _TAKE_OVER if take_over else _TAKE
    found = await session.scalar(statement, {"subscription_id": subscription_id, "process_id": process_id})
    return found is not None


async def release_locks(session: AsyncSession, process_id: UUID) -> list[UUID]:
    """Set the subscriptions that a process holds in sync, and return which they were."""
    return list(await session.scalars(_RELEASE, {"process_id": process_id}))


async def lock_subscription(session: AsyncSession, subscription_id: UUID) -> None:
    """Keep every other transaction from changing a subscription's row until this one ends.

    Raises:
        NotFoundError: there is none.
    """
    if await session.scalar(_LOCK_ROW, {"subscription_id": subscription_id}) is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")


async def mark_in_sync(session: AsyncSession, subscription_id: UUID, author: str, note: str) -> None:
    """Set a subscription in sync, even if a process holds it, and record who did it and why."""
    await session.execute(_MARK_IN_SYNC, {"subscription_id": subscription_id, "author": author, "note": note})


async def read_lock(session: AsyncSession, subscription_id: UUID) -> LockState:
    """Return whether a subscription is in sync and which process holds it.

    Raises:
        NotFoundError: there is no such subscription.
    """
    row = (await session.execute(_READ_LOCK, {"subscription_id": subscription_id})).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no subscription {subscription_id}")
    return LockState(row.insync, row.locked_by, row.workflow, row.status)


async def list_locked(session: AsyncSession, process_id: UUID) -> list[UUID]:
    """Return the subscriptions whose locks a process holds."""
    return list(await session.scalars(_LIST_LOCKED, {"process_id": process_id}))


async def link_subscriptions(session: AsyncSession, process_id: UUID, subscription_ids: Iterable[UUID]) -> None:
    """Record that a process touches subscriptions; those that do not exist are left out."""
    await session.execute(_LINK, {"process_id": process_id, "subscription_ids": list(subscription_ids)})
