"""Check, at the end of a step, what the subscriptions that it has saved mean to those that use them.

At the end and not at each save: a step may end a subscription together with those that use it, in any order.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import CHANGED
from orchestrator.db.subscriptions.uses import list_uses
from orchestrator.domain.users import check_users
from orchestrator.errors import ModelError
from orchestrator.services.subscriptions import WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import Workflow


async def check_changed(session: AsyncSession, workflow: Workflow) -> None:
    """Check the users of what a session has saved: none may use what has ended, and all must still be valid.

    Raises:
        ModelError: a subscription that was ended is in use, and the project has not exempted the workflow; or one that uses a
            changed block could not be loaded any more.
    """
    changed = session.info.get(CHANGED)
    if not changed:
        return
    uses = await list_uses(session, changed)
    if WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.get(workflow.name, True):
        for use in uses:
            if use.status == SubscriptionLifecycle.TERMINATED and changed[use.subscription_id]:
                raise ModelError(
                    f"the subscription {use.subscription_id} cannot be terminated: the subscription {use.user_id}"
                    f" ({use.product}, {use.user_status}) uses it. End that first, or in the same step; or exempt the workflow:"
                    f" WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update({{{workflow.name!r}: False}})"
                )
    await check_users(session, uses)
