"""The task that lets waiting processes try again now."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.due import wake_waiting
from orchestrator.types import JSON
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task


@step("Resume waiting processes")
async def resume_waiting(session: AsyncSession) -> dict[str, JSON]:
    """Make all processes due that wait for their next automatic try, and return how many of each workflow."""
    woken = await wake_waiting(session)
    return {"resumed": sum(woken.values()), "resumed_by_workflow": dict(woken)}


@task("Let processes that are waiting try again now")
def task_resume_workflows() -> StepList:
    """Bring forward what the retry policies would do later. The tries count as theirs, so that their limits hold."""
    return begin >> resume_waiting
