"""The steps that the workflow types are made of; authors may use them in workflows of their own.

The lock of a subscription is held from ``unsync`` to ``resync``, across failures and retries. A process releases only what it
holds: a workflow that was allowed to run while another process has the lock leaves the lock alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.rows import load_process
from orchestrator.db.subscriptions import locks
from orchestrator.db.subscriptions.queries import read_tree
from orchestrator.domain import SubscriptionModel
from orchestrator.engine.references import OLD_SUBSCRIPTIONS, SUBSCRIPTION_ID, SUBSCRIPTION_VERSION, subscription_ids
from orchestrator.engine.state import store_and_read
from orchestrator.engine.usability import IN_USE
from orchestrator.errors import DefinitionError, InvalidResultError, MissingArgumentError
from orchestrator.registry import plan_of
from orchestrator.services import locking
from orchestrator.services.children import StartedProcesses, start_processes
from orchestrator.services.subscriptions import require_still_usable, require_version
from orchestrator.targets import Target
from orchestrator.types import State, SubscriptionLifecycle
from orchestrator.workflow import Step, step

__all__ = [
    "MAX_COPY",
    "SUBSCRIPTION",
    "StartedProcesses",
    "StoreProcessSubscription",
    "lock_subscriptions",
    "resync",
    "set_status",
    "start_processes",
    "store_process_subscription",
    "unsync",
    "unsync_unchecked",
]

SUBSCRIPTION = "subscription"
"""The state key with the reference to the subscription that a workflow is about."""

MAX_COPY = 256 * 1024
"""Bytes of JSON of all copies of subscriptions that the state holds. One for which there is no room, or that is nested too
deeply, is kept without its blocks – the history has them – because it is carried from step to step."""


class StoreProcessSubscription(Step):
    """A step that may be written with or without parentheses, because authors know both forms."""

    __slots__ = ()

    def __call__(self, workflow_target: Target | None = None) -> Step:  # noqa: ARG002 - the process knows its workflow
        """Return the step itself."""
        return self


@step("Link process to subscription")
async def _store_process_subscription(session: AsyncSession, process_id: UUID, state: State) -> None:
    await locks.link_subscriptions(
        session, process_id, subscription_ids(state) or [_subject(state, "Link process to subscription")]
    )


store_process_subscription = StoreProcessSubscription(
    _store_process_subscription.name, _store_process_subscription.kind, _store_process_subscription.function
)
"""Record that this process touches the subscriptions that its state refers to."""


def set_status(status: SubscriptionLifecycle | str) -> Step:
    """Return a step that moves the subscription to another lifecycle; its model must be valid there.

    Becoming active sets ``start_date`` if there is none; being terminated sets ``end_date``.
    """
    if status not in list(SubscriptionLifecycle):
        raise DefinitionError(f"there is no status {status!r}: there are {', '.join(SubscriptionLifecycle)}")
    wanted = SubscriptionLifecycle(status)

    @step(f"Set subscription to '{wanted.value}'")
    async def change_status(
        session: AsyncSession, process_id: UUID, subscription: SubscriptionModel, state: State
    ) -> dict[str, Any]:
        await _require_subject(session, process_id, subscription.subscription_id, state)
        moved = subscription
        if subscription.status is not wanted:
            moved = SubscriptionModel.from_other_lifecycle(subscription, wanted)
        if wanted is SubscriptionLifecycle.TERMINATED:
            # Asked after it was written: whoever began to use it has locked its row until then, and whoever comes now is
            # refused. What was written is undone if it is in use.
            await moved.save(session)
            await _require_still(session, process_id, moved.subscription_id, {IN_USE})
        return {"subscription": moved}

    return change_status


@step("Lock subscription")
async def unsync(session: AsyncSession, process_id: UUID, state: State) -> State:
    """Take the lock, and keep a copy of the subscription as it is now.

    Raises:
        SubscriptionLockedError: it, or a neighbour, is out of sync, and the workflow is not one that may run all the same.
        WorkflowNotUsableError: it has changed since the start, so that the workflow may no longer run on it.
        StaleVersionError: it has changed since the caller looked at it, and the caller has said at which version that was.
    """
    return await _lock(session, process_id, state, _subject(state, "Lock subscription"), ())


def lock_subscriptions(*keys: str) -> Step:
    """Return a step that locks the subscription of the workflow and those that the state names under these keys.

    All are locked or none, in one transaction and in the order of their ids; ``resync`` gives them back together. It keeps a
    copy of each as it is now.

    Args:
        keys: under each stands an id, a reference, a list of these, or ``None`` for none.
    """
    if not keys or not all(isinstance(key, str) and key for key in keys):
        raise DefinitionError(f"lock_subscriptions takes keys of the state, such as 'other_node', not {keys!r}")

    @step("Lock subscriptions")
    async def lock(session: AsyncSession, process_id: UUID, state: State) -> State:
        others = [one for key in keys for one in _named(state, key)]
        await locks.link_subscriptions(session, process_id, others)
        return await _lock(session, process_id, state, _subject(state, "Lock subscriptions"), others)

    return lock


async def _lock(session: AsyncSession, process_id: UUID, state: State, subject: UUID, others: Sequence[UUID]) -> State:
    process = await load_process(session, process_id)
    await locking.lock_subscriptions(session, plan_of(process.workflow).workflow, process_id, subject, others)
    old = state.get(OLD_SUBSCRIPTIONS, {})
    for one in dict.fromkeys(others):
        old = (await _keep(session, one, {OLD_SUBSCRIPTIONS: old}))[OLD_SUBSCRIPTIONS]
    kept = await _keep(session, subject, {OLD_SUBSCRIPTIONS: old})
    if SUBSCRIPTION_VERSION in state:
        require_version(subject, state[SUBSCRIPTION_VERSION], kept[SUBSCRIPTION]["version"])
    return kept


@step("Lock subscription without checking")
async def unsync_unchecked(session: AsyncSession, process_id: UUID, state: State) -> State:
    """Take the lock even if the subscription is out of sync, unless an unfinished process holds it: then continue without."""
    subscription_id = _subject(state, "Lock subscription without checking")
    await locks.take_lock(session, subscription_id, process_id, take_over=True)
    return await _keep(session, subscription_id, state)


@step("Unlock subscription")
async def resync(session: AsyncSession, process_id: UUID) -> None:
    """Release every lock that this process holds: on its own subscription, and on those that its steps have created."""
    await locks.release_locks(session, process_id)


async def _require_still(session: AsyncSession, process_id: UUID, subscription_id: UUID, keys: Collection[str]) -> None:
    process = await load_process(session, process_id)
    await require_still_usable(session, plan_of(process.workflow).workflow, subscription_id, keys, process_id)


async def _require_subject(session: AsyncSession, process_id: UUID, subscription_id: UUID, state: State) -> None:
    """Check that the subscription in the state is the process's own: an author's step may have returned another under its key."""
    about = state.get(SUBSCRIPTION_ID)
    if about is None or str(about) == str(subscription_id):
        return
    process = await load_process(session, process_id)
    if plan_of(process.workflow).workflow.target is not Target.CREATE:
        raise InvalidResultError(
            f"the state has the subscription {subscription_id} under {SUBSCRIPTION!r}, but this process is about {about}:"
            " a step has returned another one under that key; use another key"
        )


def _subject(state: State, name: str) -> UUID:
    # Not any reference: steps may have looked up other subscriptions, and the state's keys are in no order of ours. First the
    # one about which the start has asked the rules.
    for key in (SUBSCRIPTION_ID, SUBSCRIPTION):
        found = subscription_ids({key: state.get(key)})
        if found:
            return found[0]
    raise MissingArgumentError(
        f"the step {name!r} finds no subscription in the state: neither under {SUBSCRIPTION!r} nor {SUBSCRIPTION_ID!r}"
    )


def _named(state: State, key: str) -> list[UUID]:
    """Return the subscriptions under a key of the state."""
    if key not in state:
        raise MissingArgumentError(
            f"the step 'Lock subscriptions' finds no {key!r} in the state: the form, or a step before, must put an id there"
        )
    value = state[key]
    found = []
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        written = one.get(SUBSCRIPTION_ID) if isinstance(one, dict) else one
        try:
            found.append(UUID(str(written)))
        except ValueError:
            raise MissingArgumentError(
                f"the step 'Lock subscriptions' finds {one!r:.100} under {key!r} in the state: neither the id of a subscription"
                f" nor an object with {SUBSCRIPTION_ID!r}"
            ) from None
    return found


async def _keep(session: AsyncSession, subscription_id: UUID, state: State) -> State:
    # Read after the lock was taken: taking it may have waited for another process that has changed something.
    found = await read_tree(session, subscription_id)
    # Everything it is, but not its lock, which is this process's now, nor who uses it: that may be thousands of others.
    document = {**asdict(found.summary), "blocks": [asdict(block) for block in found.blocks]}
    del document["insync"], document["locked_by"]
    known = state.get(OLD_SUBSCRIPTIONS, {})
    if not _is_storable(document) or len(to_json(document)) + len(to_json(known)) > MAX_COPY:
        document |= {"blocks": [], "blocks_left_out": True}
    reference = {key: document[key] for key in ("subscription_id", "product", "description", "status", "version")}
    return {
        SUBSCRIPTION: reference,
        OLD_SUBSCRIPTIONS: {**known, str(subscription_id): document},
    }


def _is_storable(document: State) -> bool:
    try:
        store_and_read(document, within=2)
    except ValueError:
        return False
    return True
