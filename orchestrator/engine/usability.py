"""Decide whether a workflow may run on a subscription, from facts and rules: pure, and the same at every entry point.

A subscription that is out of sync is being changed by a process, or was left half changed. Its neighbours – subscriptions that
use a block of it, or whose blocks it uses – must not change either. Only tasks, which read rather than change, workflows that
reconcile, and those that the project has listed as harmless run all the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from orchestrator.targets import Target
from orchestrator.types import JSON, ProcessStatus, SubscriptionLifecycle

NOT_IN_SYNC = "subscription.not_in_sync"
RELATIONS_NOT_IN_SYNC = "subscription.relations_not_in_sync"
INVALID_STATUS = "subscription.no_modify_invalid_status"
IN_USE = "subscription.no_modify_subscription_in_use_by_others"
CREATES = "subscription.create_workflow"
NOT_OF_PRODUCT = "subscription.workflow_not_of_product"

_USUAL_STATUS = (SubscriptionLifecycle.ACTIVE.value,)

_TASK_TARGETS = frozenset({Target.SYSTEM, Target.VALIDATE})

_NAMED = 3
"""The most ids that a sentence names; the reason's details have all of them."""


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """What must be known of a subscription to decide which workflows may run on it.

    Args:
        locked_by: the process that holds it, if it is out of sync and that is known.
        locked_relations: subscriptions that use it or that it uses, which are out of sync and not terminated.
        unterminated_users: subscriptions that use it and are not terminated.
        holder_status: of the process that holds it.
    """

    subscription_id: UUID
    product_id: UUID
    status: str
    insync: bool
    locked_by: UUID | None = None
    locked_relations: tuple[UUID, ...] = ()
    unterminated_users: tuple[UUID, ...] = ()
    holder_status: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The project's rules about its workflows, by their names; the rest follows from their targets.

    Args:
        usable_map: the statuses in which a workflow may run.
        blocked_by_users: whether a workflow is refused while unterminated subscriptions use the one it would change.
        usable_while_out_of_sync: workflows that may run although the subscription, or a neighbour, is out of sync.
    """

    usable_map: Mapping[str, Sequence[str]] = field(default_factory=dict)
    blocked_by_users: Mapping[str, bool] = field(default_factory=dict)
    usable_while_out_of_sync: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a workflow may not run: a stable key for programs, the values concerned, and a sentence for people."""

    key: str
    words: str
    details: Mapping[str, JSON] = field(default_factory=dict)

    def document(self) -> dict[str, JSON]:
        """Return the reason as a JSON object."""
        return {"key": self.key, **self.details}


@dataclass(frozen=True, slots=True)
class Usability:
    """Whether a workflow may run on a subscription.

    Args:
        reasons: every reason against it; empty when it may run.
        dangerous: it may run, but another process may be changing the same things, and only the project's list allows it.
    """

    reasons: tuple[Reason, ...]
    dangerous: bool = False

    @property
    def usable(self) -> bool:
        """Return whether the workflow may run."""
        return not self.reasons


def usability(name: str, target: Target, is_task: bool, facts: SubscriptionFacts, rules: Rules) -> Usability:
    """Decide whether one workflow may run on one subscription.

    Args:
        name: of the workflow, as in the rules.
        is_task: workflows with target ``SYSTEM`` or ``VALIDATE`` are tasks in any case.
    """
    if target is Target.CREATE:
        return Usability((Reason(CREATES, "it makes new subscriptions and never runs on one that exists"),))
    out_of_sync = tuple(_out_of_sync(facts))
    unaffected = is_task or target in _TASK_TARGETS or target is Target.RECONCILE
    listed = name in rules.usable_while_out_of_sync
    reasons = () if unaffected or listed else out_of_sync
    reasons += (*_status(name, target, facts, rules), *_users(name, target, facts, rules))
    return Usability(reasons, dangerous=not reasons and bool(out_of_sync) and not unaffected)


def usable_statuses(name: str, target: Target, rules: Rules) -> Sequence[str] | None:
    """Return the statuses of subscriptions in which a workflow may run; ``None`` for all."""
    wanted = rules.usable_map.get(name)
    if wanted is None and target is not Target.TERMINATE:
        return _USUAL_STATUS
    return wanted


def not_of_product(product: str) -> Reason:
    """Return the reason for a workflow that is not linked to the subscription's product."""
    return Reason(NOT_OF_PRODUCT, f"it does not belong to the subscription's product {product!r}", {"product": product})


def _out_of_sync(facts: SubscriptionFacts) -> Iterable[Reason]:
    if not facts.insync:
        holder = None if facts.locked_by is None else str(facts.locked_by)
        words = "the subscription is out of sync"
        if holder is not None and ProcessStatus(facts.holder_status or "running").is_final:
            words += (
                f": process {holder}, which is {facts.holder_status}, has left it so ('orchestrator subscriptions set-in-sync'"
                " once you have checked it)"
            )
        elif holder is not None:
            words += f": process {holder} holds it"
        yield Reason(NOT_IN_SYNC, words, {"locked_by": holder})
    if facts.locked_relations:
        words = f"related subscriptions are out of sync: {_named(facts.locked_relations)}"
        yield Reason(RELATIONS_NOT_IN_SYNC, words, {"locked_relations": _ids(facts.locked_relations)})


def _status(name: str, target: Target, facts: SubscriptionFacts, rules: Rules) -> Iterable[Reason]:
    wanted = usable_statuses(name, target, rules)
    if wanted is None or facts.status in wanted:
        return
    words = f"the subscription is {facts.status}, the workflow runs on those that are {_either(wanted)}"
    usable_when: list[JSON] = [str(status) for status in wanted]
    # A word for the sentence of user interfaces.
    action = "terminated" if target is Target.TERMINATE else "modified"
    yield Reason(INVALID_STATUS, words, {"status": facts.status, "usable_when": usable_when, "action": action})


def _users(name: str, target: Target, facts: SubscriptionFacts, rules: Rules) -> Iterable[Reason]:
    if facts.unterminated_users and rules.blocked_by_users.get(name, target is Target.TERMINATE):
        words = f"other subscriptions that are not terminated use it: {_named(facts.unterminated_users)}"
        yield Reason(IN_USE, words, {"unterminated_in_use_by_subscriptions": _ids(facts.unterminated_users)})


def _ids(ids: Iterable[UUID]) -> list[JSON]:
    return [str(one) for one in ids]


def _named(ids: Sequence[UUID]) -> str:
    named = ", ".join(str(one) for one in ids[:_NAMED])
    return named if len(ids) <= _NAMED else f"{named} and {len(ids) - _NAMED} more"


def _either(statuses: Sequence[str]) -> str:
    *others, last = [str(status) for status in statuses] or ["in no status at all"]
    return f"{', '.join(others)} or {last}" if others else last
