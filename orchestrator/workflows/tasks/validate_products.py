"""The task that checks that code and database agree about workflows and products."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.errors import ProcessFailureError
from orchestrator.services.registrations import find_disagreements
from orchestrator.settings import load_settings
from orchestrator.types import JSON
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task

_NAMED = 10
"""Findings in the failure's text."""

_KEPT = 200
"""Findings in the failure's details."""


@step("Compare the code with the database", timeout=timedelta(hours=1))
async def compare_with_database(session: AsyncSession) -> dict[str, JSON]:
    """Fail with everything in which they disagree."""
    found = await find_disagreements(session, load_settings().default_product_workflows)
    if found:
        more = f"\n… and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        listed = "\n".join(f"• {one}" for one in found[:_NAMED])
        points = "1 point" if len(found) == 1 else f"{len(found)} points"
        raise ProcessFailureError(
            f"code and database disagree in {points}:\n{listed}{more}",
            {"count": len(found), "findings": [*found[:_KEPT]]},
        )
    return {"disagreements": 0}


@task("Check that code and database agree about workflows and products")
def task_validate_products() -> StepList:
    """Compare them in one step, so that a failure names everything and a retry looks again."""
    return begin >> compare_with_database
