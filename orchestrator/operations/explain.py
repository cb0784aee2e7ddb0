"""Explain why a process does not go on: read what is known of it and of those on whom it depends."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.db.standing import Standing, count_ahead, read_claimant, read_standing
from orchestrator.db.status import list_consumers, read_engine_status
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.operations.explanation import Clock, Explanation, Facts, explain, write_utc
from orchestrator.operations.waiting import Wait
from orchestrator.registry import plan_of, queue_of
from orchestrator.types import ProcessStatus

if TYPE_CHECKING:
    from orchestrator.db.session import Driver


async def explain_process(connection: Driver, process_id: UUID, clock: Clock = write_utc) -> Explanation:
    """Return why a process does not go on, as text and as data. Nothing is locked, and the broker is not asked.

    The workflows of this program say which queue a step has; its modules must have been loaded.

    Raises:
        NotFoundError.
    """
    standing = await read_standing(connection, process_id)
    engine = await read_engine_status(connection)
    status = ProcessStatus(standing.status)
    is_known = status.is_final or _knows_step(standing)
    if status is not ProcessStatus.RUNNING:
        return explain(Facts(standing, engine, is_known=is_known), clock)
    if standing.claimed_by is not None:
        claimant = await read_claimant(connection, standing.claimed_by)
        return explain(Facts(standing, engine, claimant=claimant, is_known=is_known), clock)
    queue = queue_of(standing.workflow, standing.step)
    ahead = await count_ahead(connection, standing)
    wait = Wait.of(
        standing.workflow,
        queue,
        await list_consumers(connection),
        paused=engine.paused,
        plans=standing.plans,
        ahead=None if queue is None else sum(many for step, many in ahead.items() if queue_of(*step) == queue),
    )
    return explain(Facts(standing, engine, wait=wait, is_known=is_known), clock)


def _knows_step(standing: Standing) -> bool:
    """Return whether the code of this program has the step; a workflow that it does not know at all is another matter."""
    try:
        return standing.step is None or standing.step in plan_of(standing.workflow).positions
    except (NotFoundError, DefinitionError):
        return True
