"""What must be written of a model, and whether it may be. Pure: the database is asked by others."""

from __future__ import annotations

from orchestrator.db.subscriptions import Difference, StoredSubscription
from orchestrator.domain.checking import check, check_comes_back
from orchestrator.domain.difference import difference
from orchestrator.domain.model import Block, Subscription
from orchestrator.domain.rows import block_row, reachable, subscription_rows
from orchestrator.domain.texts import describe
from orchestrator.errors import ModelError


def judged(subscription: Subscription) -> tuple[Difference | None, StoredSubscription]:
    """What is different from what the database has, if anything, and the rows as they should be.

    Raises:
        ModelError: the model cannot be saved as it is.
    """
    _check_class(subscription)
    blocks = reachable(subscription)
    for block in blocks.values():
        if block.owner_subscription_id == subscription.subscription_id:
            _check_own(subscription, block)
        else:
            _check_shared(subscription, block)
    check(subscription)
    now = subscription_rows(subscription)
    then = subscription.as_stored
    version = None if then is None else subscription.version
    found = difference(then, now, version=version, insync=subscription.insync)
    for key in () if found is None else (*found.made, *found.changed):
        check_comes_back(blocks[key], now.blocks[key])
    return found, now


def _check_class(subscription: Subscription) -> None:
    model = type(subscription).__family__.class_for(subscription.status)
    if type(subscription) is not model:
        raise ModelError(
            f"the subscription {subscription.subscription_id} is {subscription.status.value}, and so {model.__name__}, but the"
            f" model is {type(subscription).__name__}: change the status with {model.__name__}.from_other_lifecycle(...)"
        )


def _check_own(subscription: Subscription, block: Block) -> None:
    expected = block.__family__.class_for(subscription.status)
    if not isinstance(block, expected):
        raise ModelError(
            f"{describe(block)} is {type(block).__name__}, but in a subscription that is {subscription.status.value} it"
            f" must be {expected.__name__}"
        )
    check(block)


def _check_shared(subscription: Subscription, block: Block) -> None:
    owner = block.owner_subscription_id
    if block.as_stored is None:
        raise ModelError(
            f"{describe(block)} belongs to the subscription {owner}, which has not been saved with it: save that"
            f" first, then the subscription {subscription.subscription_id}, which uses it"
        )
    if block_row(block) != block.as_stored:
        raise ModelError(
            f"{describe(block)} was changed, but it belongs to the subscription {owner}, not to"
            f" {subscription.subscription_id}, which only uses it: change it in a process on its owner"
        )
