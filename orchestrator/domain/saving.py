"""Save subscriptions: check one and compare it with its rows in one walk, store the difference, remember what was stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as db
from orchestrator.db.rollback_hooks import undo_on_rollback
from orchestrator.db.session import SAVED
from orchestrator.db.subscriptions import Difference, StoredSubscription
from orchestrator.domain.diff import diff_rows
from orchestrator.domain.model import Block, Subscription, describe
from orchestrator.domain.rows import build_block_row, build_rows, walk_blocks
from orchestrator.domain.serialization import check_round_trip, check_values
from orchestrator.errors import ModelError


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

    async def store(self, session: AsyncSession) -> None:
        """Write the difference in the session's transaction, and let the models remember it until that is rolled back.

        Raises:
            ModelError: a block of another subscription is new or was changed, or the database refuses the difference.
            ConcurrentChangeError: the subscription was changed since it was loaded.
        """
        self.check_shared()
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
    for key in () if difference is None else (*difference.made, *difference.changed):
        check_round_trip(own[key], rows.blocks[key])
    return Save(subscription, rows, difference, tuple(own.values()), tuple(shared))
