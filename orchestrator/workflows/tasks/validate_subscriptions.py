"""The task that validates all subscriptions."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.services.validations import start_validations
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task


@step("Start the validations", timeout=timedelta(hours=4))
async def validate_all(session: AsyncSession) -> State:
    """Start a validation of each subscription, and return how many."""
    return await start_validations(session)


@task("Validate all subscriptions")
def task_validate_subscriptions() -> StepList:
    """Start the validations in one step, in its commit; they run by themselves."""
    return begin >> validate_all
