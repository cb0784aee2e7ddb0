"""Steps that are tried again by themselves."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import tenacity
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.retry import RetryPolicy
from orchestrator.workflow import Step, StepList, done, init, retrystep, workflow
from tests.acceptance.workflows.lab import effect, is_open, note


def trying(name: str, policy: RetryPolicy | None) -> Step:
    """Return a step that fails until the test opens its gate."""

    @retrystep(name, retry=policy)
    async def attempt(session: AsyncSession, process_id: UUID, idempotency_key: str) -> dict[str, bool]:
        note(process_id, "try", key=idempotency_key)
        await effect(session, process_id, name)
        if not is_open(f"mended-{process_id}"):
            raise ConnectionError("the node does not answer")
        return {"tried": True}

    return attempt


@workflow("Tried again every 0.2 s")
def tried_again() -> StepList:
    return init >> trying("Try", RetryPolicy(tenacity.wait_fixed(0.2))) >> done


@workflow("Tried three times")
def tried_thrice() -> StepList:
    return init >> trying("Try", RetryPolicy(tenacity.wait_fixed(0.1), limit=3)) >> done


@workflow("Tried again after an hour")
def tried_late() -> StepList:
    return init >> trying("Try", RetryPolicy(tenacity.wait_fixed(3600))) >> done


@retrystep("Return nonsense", retry=RetryPolicy(tenacity.wait_fixed(0.1)))
async def nonsense(process_id: UUID) -> Any:
    note(process_id, "try")
    return [1]


@workflow("A defect is not tried again by itself")
def never_by_itself() -> StepList:
    return init >> nonsense >> done
