"""Lock the subscriptions that a process is to change: all of them or none, while their neighbours hold still."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions import locks
from orchestrator.db.subscriptions.neighbours import hold_still
from orchestrator.engine.usability import IN_USE, INVALID_STATUS, RELATIONS_NOT_IN_SYNC
from orchestrator.errors import SubscriptionLockedError
from orchestrator.services.subscriptions import WF_USABLE_WHILE_OUT_OF_SYNC, require_still_usable
from orchestrator.workflow import Workflow


async def lock_subscriptions(
    session: AsyncSession, workflow: Workflow, process_id: UUID, subject: UUID, others: Sequence[UUID] = ()
) -> None:
    """Take the locks of a workflow's subscription and of others, in the order of their ids.

    The start has asked the rules as well, but between it and the lock others had the subscriptions. An error must undo the
    transaction: then none of the locks is taken.

    Args:
        subject: the one that the workflow is about. Only this one must be in the right lifecycle, and not be in use.

    Raises:
        NotFoundError: there is no such subscription.
        SubscriptionLockedError: one of them, or a neighbour, is out of sync, and the workflow may not run all the same.
        WorkflowNotUsableError: the subject has changed since the start, so that the workflow may no longer run on it.
    """
    every = sorted({subject, *others})
    # What is out of sync for longer is found before any row is waited for.
    for one in every:
        await require_still_usable(session, workflow, one, {RELATIONS_NOT_IN_SYNC}, process_id)
    await hold_still(session, every)
    for one in every:
        if not await locks.take_lock(session, one, process_id) and workflow.name not in WF_USABLE_WHILE_OUT_OF_SYNC:
            lock = await locks.read_lock(session, one)
            raise SubscriptionLockedError(
                f"the subscription {one} cannot be locked: {lock}. Retry when it is in sync again."
            )
    for one in every:
        keys = {INVALID_STATUS, IN_USE, RELATIONS_NOT_IN_SYNC} if one == subject else {RELATIONS_NOT_IN_SYNC}
        await require_still_usable(session, workflow, one, keys, process_id)
