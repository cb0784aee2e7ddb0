"""Run predicates that ship: conditions for a start that many tasks have."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.unfinished import find_uncompleted, serialize_starts, serialize_starts_at_once
from orchestrator.db.thread_session import either
from orchestrator.errors import PredicateFailedError

_NAMED = 3
"""Processes that a refusal names."""


@either
async def no_uncompleted_instance(session: AsyncSession, workflow: str) -> bool | str:
    """Let a workflow start only when no earlier process of it is left: all are completed or aborted.

    A failed one counts, because it may still be retried. Of several starts at the same moment one succeeds: they are decided
    one after the other, each when the one before has ended.
    """
    await serialize_starts(session, workflow)
    return await _find_obstacle(session, workflow)


async def require_still_no_instance(session: AsyncSession, workflow: str) -> None:
    """Ask again what :func:`no_uncompleted_instance` has answered in an earlier transaction, now that the process is stored.

    Raises:
        PredicateFailedError: a process has been started since.
        DBAPIError: another transaction is starting one at this moment.
    """
    await serialize_starts_at_once(session, workflow)
    answer = await _find_obstacle(session, workflow)
    if answer is not True:
        raise PredicateFailedError(f"the workflow {workflow!r} may not run now: {answer}")


async def _find_obstacle(session: AsyncSession, workflow: str) -> bool | str:
    count, left = await find_uncompleted(session, workflow, _NAMED)
    if not count:
        return True
    named = ", ".join(f"{process_id} ({status})" for process_id, status in left)
    more = f" and {count - len(left)} more" if count > len(left) else ""
    return f"it has processes that are neither completed nor aborted: {named}{more}"
