"""Carry out what is done to many processes, for paths and pages."""

from __future__ import annotations

from orchestrator.api.context import ApiContext
from orchestrator.authorization import User
from orchestrator.messages import Advanced
from orchestrator.operations.bulk import Act, BulkAction, BulkOutcome, Selection, act_on_all


async def carry_out(context: ApiContext, selection: Selection, user: User, reason: str | None = None) -> BulkOutcome:
    """Do the action to each process of a selection, in a transaction of its own, and notify the coordinators."""

    async def change(workflow: str, act: Act) -> Advanced:
        if selection.action is BulkAction.ABORT:
            return await context.change(act)
        message = await context.run_author_code(workflow, act)
        context.notify(message.process_id, message.workflow)
        return message

    return await act_on_all(selection, change, user, context.limits, reason)
