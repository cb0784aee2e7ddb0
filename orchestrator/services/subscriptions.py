"""Check which workflows may run on a subscription; read subscriptions.

Three rules belong to the project. They are plain containers that the project's ``workflows/__init__.py``, which every program
imports, changes; their keys and items are names of workflows::

    from orchestrator.services.subscriptions import WF_USABLE_MAP

    WF_USABLE_MAP.update({"modify_node": ["active", "provisioning"]})
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.lists.subscription_search import search_subscriptions
from orchestrator.db.notices import Change, Notice, notify
from orchestrator.db.subscriptions.history import read_history
from orchestrator.db.subscriptions.locks import LockState, lock_subscription, mark_in_sync, read_lock
from orchestrator.db.subscriptions.neighbours import Case, LinkedWorkflow, read_case
from orchestrator.db.subscriptions.queries import list_subscriptions, show
from orchestrator.db.thread_session import either
from orchestrator.engine.usability import RELATIONS_NOT_IN_SYNC, Reason, Rules, Usability, not_of_product, usability
from orchestrator.errors import (
    DefinitionError,
    StaleVersionError,
    SubscriptionHeldError,
    SubscriptionLockedError,
    WorkflowNotUsableError,
)
from orchestrator.services.finding import find_blocks_using, find_subscriptions
from orchestrator.services.texts import check_text
from orchestrator.targets import Target
from orchestrator.text import MAX_REASON
from orchestrator.types import ProcessStatus, SubscriptionLifecycle
from orchestrator.workflow import Workflow

__all__ = [
    "WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS",
    "WF_USABLE_MAP",
    "WF_USABLE_WHILE_OUT_OF_SYNC",
    "Offer",
    "check_rules",
    "find_blocks_using",
    "find_subscriptions",
    "list_subscriptions",
    "read_history",
    "require_usable",
    "rules",
    "search_subscriptions",
    "set_in_sync",
    "show",
    "workflows_for",
]

WF_USABLE_MAP: dict[str, list[str]] = {}
"""Workflow → the statuses of subscriptions on which it may run. Others: ``active``; terminate workflows: any."""

WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS: dict[str, bool] = {}
"""Workflow → whether it is refused while unterminated subscriptions use the one it would change. Others: terminate only."""

WF_USABLE_WHILE_OUT_OF_SYNC: list[str] = []
"""Workflows that may run on a subscription that is out of sync, or has neighbours that are. Dangerous: keep it short."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A workflow of a subscription's product, and whether it may run on it now.

    Args:
        dangerous: it may, but only because ``WF_USABLE_WHILE_OUT_OF_SYNC`` names it: the subscription, or a neighbour, is out
            of sync.
    """

    name: str
    description: str
    target: Target
    is_task: bool
    usable: bool
    dangerous: bool
    reasons: tuple[Reason, ...]


def rules() -> Rules:
    """Return the project's rules as they are now."""
    return Rules(WF_USABLE_MAP, WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS, WF_USABLE_WHILE_OUT_OF_SYNC)


def check_rules() -> None:
    """Check the values of the rules. Unknown names of workflows are fine: another project may have them.

    Raises:
        DefinitionError: a value is invalid; the text names the map, the workflow and the value.
    """
    lifecycles = [status.value for status in SubscriptionLifecycle]
    for workflow, statuses in _entries("WF_USABLE_MAP", WF_USABLE_MAP):
        place = f"WF_USABLE_MAP[{workflow!r}]"
        if not isinstance(statuses, list | tuple):
            raise DefinitionError(f"{place} must be a list of statuses, such as ['active'], not {statuses!r}")
        for status in statuses:
            if status not in lifecycles:
                raise DefinitionError(f"{place} has the status {status!r}: there are only {', '.join(lifecycles)}")
    for workflow, blocked in _entries("WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS", WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS):
        if not isinstance(blocked, bool):
            raise DefinitionError(
                f"WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS[{workflow!r}] must be True or False, not {blocked!r}"
            )
    listed: Any = WF_USABLE_WHILE_OUT_OF_SYNC
    if not isinstance(listed, list | tuple):
        raise DefinitionError(f"WF_USABLE_WHILE_OUT_OF_SYNC must be a list of names of workflows, not {listed!r}")
    for name in listed:
        if not isinstance(name, str):
            raise DefinitionError(f"WF_USABLE_WHILE_OUT_OF_SYNC must hold names of workflows, not {name!r}")


async def require_usable(session: AsyncSession, workflow: Workflow, subscription_id: UUID) -> Case:
    """Check that a workflow may run on a subscription now; return what decided it.

    This takes no lock: several starts at the same instant may all pass, and the step that locks the subscription checks
    again. A start that locked the row would hold a connection while it waited for any step that has written to the row.

    Raises:
        NotFoundError: there is no such subscription.
        WorkflowNotUsableError: the workflow may not run on it; the error has all reasons.
    """
    case = await read_case(session, subscription_id)
    reasons = _check(workflow, case).reasons
    if workflow.target is not Target.SYSTEM and workflow.name not in case.workflows:
        reasons = (not_of_product(case.product), *reasons)
    _refuse(workflow, case, reasons)
    return case


def passes_locks(workflow: Workflow) -> bool:
    """Return whether a workflow's steps may save subscriptions that other processes hold.

    Such workflows may run at the same time as those processes. A model's version prevents that they overwrite a change which
    they have not read.
    """
    return workflow.is_task or workflow.target is Target.RECONCILE or workflow.name in WF_USABLE_WHILE_OUT_OF_SYNC


def require_version(subscription_id: UUID, seen: int, version: int | None) -> None:
    """Check that a subscription still has the version that the caller has read.

    Raises:
        StaleVersionError: it has changed; the error has both versions.
    """
    if version != seen:
        raise StaleVersionError(
            f"the subscription {subscription_id} has changed: you have looked at version {seen}, it is at version {version}"
            " now. Look at it again before you change it.",
            {"seen": seen, "version": version},
        )


@either
async def workflows_for(session: AsyncSession, subscription_id: UUID) -> list[Offer]:
    """Return the workflows of a subscription's product, and whether each may run on it now, ordered by target and name.

    Raises:
        NotFoundError: there is no such subscription.
    """
    case = await read_case(session, subscription_id)
    offers = []
    for one in case.workflows.values():
        if one.target is not Target.CREATE:
            found = _check(one, case)
            offers.append(
                Offer(one.name, one.description, one.target, one.is_task, found.usable, found.dangerous, found.reasons)
            )
    return sorted(offers, key=lambda offer: (offer.target, offer.name))


async def set_in_sync(session: AsyncSession, subscription_id: UUID, user: str, reason: str) -> bool:
    """Mark a subscription as in sync, after an operator has checked that it is.

    Returns:
        Whether it was out of sync.

    Raises:
        NotFoundError: there is no such subscription.
        InvalidInputError: the reason is too long, or cannot be stored.
        SubscriptionHeldError: an unfinished process holds it.
    """
    check_text(reason, "the reason", MAX_REASON)
    await lock_subscription(session, subscription_id)
    lock = await read_lock(session, subscription_id)
    if lock.insync:
        return False
    _require_finished(lock, subscription_id)
    await mark_in_sync(session, subscription_id, user, reason)
    await notify(session, Notice(Change.SUBSCRIPTIONS, subscription_id))
    return True


def _require_finished(lock: LockState, subscription_id: UUID) -> None:
    if lock.status is not None and not ProcessStatus(lock.status).is_final:
        raise SubscriptionHeldError(
            f"the subscription {subscription_id} is held by process {lock.process_id} ({lock.workflow}, {lock.status}):"
            " let it finish, or abort it first",
            {"process_id": str(lock.process_id), "workflow": lock.workflow, "status": lock.status},
        )


async def require_still_usable(
    session: AsyncSession, workflow: Workflow, subscription_id: UUID, keys: Collection[str], process_id: UUID
) -> None:
    """Check some of the rules again while a process of the workflow runs; a create workflow has none to check.

    Args:
        keys: the reasons that count now. That the subscription is out of sync, for one, is due to the process itself.
        process_id: the process; what it holds itself does not count as out of sync.

    Raises:
        NotFoundError: there is no such subscription.
        SubscriptionLockedError: a neighbour is out of sync.
        WorkflowNotUsableError: it has changed since the start.
    """
    if workflow.target is Target.CREATE:
        return
    case = await read_case(session, subscription_id, besides=process_id)
    found = [reason for reason in _check(workflow, case).reasons if reason.key in keys]
    if [reason.key for reason in found] == [RELATIONS_NOT_IN_SYNC]:
        raise SubscriptionLockedError(
            f"the subscription {subscription_id} cannot be locked: {found[0].words}. Retry when they are in sync again."
        )
    _refuse(workflow, case, found)


def _check(workflow: Workflow | LinkedWorkflow, case: Case) -> Usability:
    return usability(workflow.name, workflow.target, workflow.is_task, case.facts, rules())


def _refuse(workflow: Workflow, case: Case, reasons: Sequence[Reason]) -> None:
    if reasons:
        raise WorkflowNotUsableError(
            f"the workflow {workflow.name!r} may not run on subscription {case.facts.subscription_id}: "
            + "; ".join(reason.words for reason in reasons),
            [reason.document() for reason in reasons],
        )


def _entries(name: str, mapping: Any) -> list[tuple[str, Any]]:
    if not isinstance(mapping, dict):
        raise DefinitionError(f"{name} must be a dict, change it with {name}.update(…), not {mapping!r}")
    for workflow in mapping:
        if not isinstance(workflow, str):
            raise DefinitionError(f"{name} has names of workflows as its keys, not {workflow!r}")
    return list(mapping.items())
