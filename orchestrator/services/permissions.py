"""Ask what a user may do, before he tries: what user interfaces show of it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.authorization import Attempted, AuthCallback
from orchestrator.errors import DefinitionError, ForbiddenError, NotFoundError
from orchestrator.registry import plan_of
from orchestrator.services.hooks import authorize


def find_authorizer(attempted: Attempted) -> tuple[bool, AuthCallback | None]:
    """Return whether this program has the code of a workflow, and the callback that decides; without one every user may."""
    try:
        plan = plan_of(attempted.workflow)
    except (NotFoundError, DefinitionError):
        return False, None
    position = plan.positions.get(attempted.step or "")
    return True, plan.authorizer(attempted.action, None if position is None else plan.leaves[position])


async def is_permitted(session: AsyncSession, callback: AuthCallback | None, attempted: Attempted) -> bool:
    """Return whether the callback permits it; one that fails permits nothing."""
    try:
        await authorize(callback, attempted, session)
    except ForbiddenError:
        return False
    return True
