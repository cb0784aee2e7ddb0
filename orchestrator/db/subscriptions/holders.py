"""Read which processes hold subscriptions."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions.queries import Holder

_HOLDERS = text("SELECT process_id, workflow, status FROM processes WHERE process_id = ANY(:process_ids)")


async def read_holders(session: AsyncSession, process_ids: Collection[UUID]) -> dict[UUID, Holder]:
    """Return processes that hold subscriptions, by their ids."""
    if not process_ids:
        return {}
    rows = await session.execute(_HOLDERS, {"process_ids": list(process_ids)})
    return {row.process_id: Holder(row.process_id, row.workflow, row.status) for row in rows}
