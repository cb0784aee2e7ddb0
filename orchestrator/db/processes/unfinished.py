"""Read all processes that may still move, one at a time: there may be many, and their states may be large."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.rows import COLUMNS, build_process
from orchestrator.engine.process import Process

# One pass over the table: no index knows which processes are unfinished, and this is asked once for each deployment.
_UNFINISHED = text(
    f"""
    SELECT {COLUMNS} FROM processes AS p
     WHERE p.status NOT IN ('completed', 'aborted') ORDER BY p.workflow, p.started_at, p.process_id
    """  # noqa: S608 - built from constants
)


async def iterate_unfinished(session: AsyncSession) -> AsyncIterator[Process]:
    """Yield the processes that may still move, by workflow and the oldest first."""
    # In small portions, so that the other tasks of the program have their turn in between.
    rows = await session.stream(_UNFINISHED, execution_options={"yield_per": 50})
    async for row in rows.mappings():
        yield build_process(row)
