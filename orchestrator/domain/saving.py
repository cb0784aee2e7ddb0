"""Save subscriptions: check one and compare it with its rows in one walk, store the difference, remember what was stored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as db
from orchestrator.db.rollback_hooks import undo_on_rollback
from orchestrator.db.session import CHANGED, SAVED
from orchestrator.db.subscriptions import Difference, StoredSubscription
from orchestrator.domain.diff import diff_rows
from orchestrator.domain.model import Block, Subscription, describe
from orchestrator.domain.rows import build_block_row, build_rows, walk_blocks
from orchestrator.domain.serialization import check_round_trip, check_values
from orchestrator.errors import ModelError
from orchestrator.types import SubscriptionLifecycle


@dataclass(frozen=True, slots=True)
class Save:
    """A subscription that fits its class, ready to be stored.

    Args:
        rows: as they should be.
        difference: from the rows that the database has; ``None`` when there is nothing to write.
        own: the blocks that belong to the subscription.
        shared: the blocks below it that belong to other subscriptions.
    """

    subscription: Subscription
    rows: StoredSubscription
    difference: Difference | None
    own: tuple[Block, ...]
    shared: tuple[Block, ...]

    def find_unsaved(self) -> Iterable[Block]:
        """Find shared blocks that differ from their rows: they are new or changed."""
        return (block for block in self.shared if block.as_stored != build_block_row(block))

    def gives_up(self, blocks: Iterable[UUID]) -> bool:
        """Return whether one of these blocks was used by the subscription and is not any more."""
        return self.difference is not None and not self.difference.given_up.isdisjoint(blocks)

    def check_shared(self) -> None:
        """Check that the blocks of other subscriptions are stored as they are.

        Raises:
            ModelError: one is new or was changed.
        """
        for block in self.find_unsaved():
            mine, owner = self.subscription.subscription_id, block.owner_subscription_id
            if block.as_stored is None:
                raise ModelError(
                    f"{describe(block)} belongs to the subscription {owner}, which has not been saved with it: save that"
                    f" first, then the subscription {mine}, which uses it"
                )
            raise ModelError(
                f"{describe(block)} was changed, but it belongs to the subscription {owner}, not to {mine}, which only uses"
                " it: change it in a process on its owner"
            )

    def former_owners(self) -> Mapping[UUID, UUID]:
        """Return the blocks that the subscription takes over, each with the subscription to which it belongs in the database."""
        moved = () if self.difference is None else self.difference.moved
        return {
            block.subscription_instance_id: block.as_stored.owner
            for block in self.own
            if block.subscription_instance_id in moved and block.as_stored is not None
        }

    def removes(self, block_id: UUID) -> bool:
        """Return whether the subscription has the block no more."""
        return self.difference is not None and block_id in self.difference.removed

    async def store(self, session: AsyncSession, *, given: Collection[UUID] = ()) -> None:
        """Write the difference in the session's transaction, and let the models remember it until that is rolled back.

        Args:
            given: blocks whose present owners are stored after this subscription, without them.

        Raises:
            ModelError: a block of another subscription is new or was changed, or the database refuses the difference; or a block
                was moved here, and the one that has it is not saved with this subscription.
            ConcurrentChangeError: the subscription was changed since it was loaded.
        """
        self.check_shared()
        for block_id, owner in self.former_owners().items():
            if block_id not in given:
                raise ModelError(
                    f"the block {block_id} was moved to the subscription {self.subscription.subscription_id} and still belongs to"
                    f" {owner} in the database: return both from one step"
                )
        session.info.setdefault(SAVED, set()).add(self.subscription.subscription_id)
        if self.difference is None:
            return
        stored, version = self.subscription.as_stored, self.subscription.version
        before = [block.as_stored for block in self.own]

        def undo() -> None:
            self.subscription.mark_as_stored(stored, version)
            for block, row in zip(self.own, before, strict=True):
                block.mark_as_stored(row)

        new_version = await db.store(session, self.difference)
        status = self.difference.changes.get("status")
        if stored is not None and (self.difference.touches_blocks or status is not None):
            # For whoever ends the transaction: what this means to the subscriptions that use it.
            ended = status is not None and status[1] == SubscriptionLifecycle.TERMINATED
            changed = session.info.setdefault(CHANGED, {})
            changed[self.rows.subscription_id] = ended or changed.get(self.rows.subscription_id, False)
        await undo_on_rollback(session, undo)
        self.subscription.mark_as_stored(self.rows, new_version)
        for block in self.own:
            block.mark_as_stored(self.rows.blocks[block.subscription_instance_id])


def prepare_save(subscription: Subscription) -> Save:
    """Check a subscription and its own blocks, and compare them with what the database has. Pure.

    Raises:
        ModelError: the subscription cannot be saved as it is.
    """
    model = type(subscription).__family__.class_for(subscription.status)
    if type(subscription) is not model:
        raise ModelError(
            f"the subscription {subscription.subscription_id} is {subscription.status.value}, and so {model.__name__}, but the"
            f" model is {type(subscription).__name__}: change the status with {model.__name__}.from_other_lifecycle(...)"
        )
    tree = walk_blocks(subscription)
    own: dict[UUID, Block] = {}
    shared: list[Block] = []
    for key, block in tree.blocks.items():
        if block.owner_subscription_id != subscription.subscription_id:
            shared.append(block)
            continue
        own[key] = block
        expected = block.__family__.class_for(subscription.status)
        if not isinstance(block, expected):
            raise ModelError(
                f"{describe(block)} is {type(block).__name__}, but in a subscription that is {subscription.status.value} it"
                f" must be {expected.__name__}"
            )
        check_values(block)
    check_values(subscription)
    rows = build_rows(subscription, tree)
    stored = subscription.as_stored
    version = None if stored is None else subscription.version
    difference = diff_rows(stored, rows, version=version, insync=subscription.insync)
    if difference is not None:
        difference = _find_moved(difference, own)
        for key in (*difference.made, *difference.changed, *difference.moved):
            check_round_trip(own[key], rows.blocks[key])
    return Save(subscription, rows, difference, tuple(own.values()), tuple(shared))


def _find_moved(difference: Difference, own: Mapping[UUID, Block]) -> Difference:
    """Tell blocks that another subscription has in the database from new ones."""
    moved = {key: row for key, row in difference.made.items() if own[key].as_stored is not None}
    if not moved:
        return difference
    unlinked = [
        (key, *place)
        for key, row in moved.items()
        if (stored := own[key].as_stored) is not None
        for place in stored.links
        if place not in row.links
    ]
    return replace(
        difference,
        made={key: row for key, row in difference.made.items() if key not in moved},
        moved=moved,
        unlinked=[*difference.unlinked, *unlinked],
    )
