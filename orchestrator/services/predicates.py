"""Run predicates that ship: conditions for a start that many tasks have."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.unfinished import find_uncompleted, serialize_starts

_NAMED = 3
"""Processes that a refusal names."""


async def no_uncompleted_instance(session: AsyncSession, workflow: str) -> bool | str:
    """Let a workflow start only when no earlier process of it is left: all are completed or aborted.

    A failed one counts, because it may still be retried. Of several starts at the same moment one succeeds: they are decided
    one after the other, each when the one before has ended.
    """
    await serialize_starts(session, workflow)
    count, left = await find_uncompleted(session, workflow, _NAMED)
    if not count:
        return True
    named = ", ".join(f"{process_id} ({status})" for process_id, status in left)
    more = f" and {count - len(left)} more" if count > len(left) else ""
    return f"it has processes that are neither completed nor aborted: {named}{more}"
