"""A task: a workflow of no product. It runs on the queue ``tasks`` and never delays a customer's process."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.recipes.tables import Site
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task


@step("Count the free racks")
async def count(session: AsyncSession) -> State:
    """Count the racks. A failed ``assert`` gives the task the status ``inconsistent_data`` and the assignee ``NOC``."""
    lowest, total = (await session.execute(select(func.min(Site.free_racks), func.sum(Site.free_racks)))).one()
    assert lowest is None or lowest >= 0, "a site has less than no free racks"  # noqa: S101
    return {"free_racks": total or 0}


@task("Count the free racks")
def count_free_racks() -> StepList:
    """Return the task's steps."""
    return begin >> count
