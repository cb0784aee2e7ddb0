"""Check that subscriptions which use blocks of another one can still be loaded when that has changed."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as db
from orchestrator.db.subscriptions.uses import Use
from orchestrator.domain.definition import find_family, find_model
from orchestrator.domain.loading import Builder
from orchestrator.domain.model import Block, DomainModel
from orchestrator.errors import ModelError


async def check_users(session: AsyncSession, uses: Iterable[Use]) -> None:
    """Check that each block fits the fields of other subscriptions in which it stands.

    A block of the class for its own subscription's status was checked when that was saved. Only where a field names a stricter
    class is the block built as that class.

    Raises:
        ModelError: a subscription that uses a block could not be loaded any more.
    """
    for use in uses:
        holder = _find_holder(use)
        field = None if holder is None else holder.__shape__.blocks.get(use.field)
        if holder is None or field is None:
            continue  # code that this program does not have has stored it
        family = find_family(use.name)
        if family is None or issubclass(family.class_for(use.status), field.classes):
            continue
        _, blocks = await db.load_block(session, use.block_id)
        for cls in field.classes:
            if cls.__family__ is family and issubclass(cls, Block):
                builder = Builder(blocks)
                builder.build_as(use.block_id, cls, use.field)
                others = "" if use.number == 1 else f" and {use.number - 1} more"
                builder.check(
                    f"the subscription {use.subscription_id} cannot be saved, because {use.user_id} ({use.product},"
                    f" {use.user_status}){others} could not be loaded any more, which has its block in a field"
                    f" {holder.__name__}.{use.field} for {cls.__name__}"
                )


def _find_holder(use: Use) -> type[DomainModel] | None:
    """Return the class in whose field a block stands."""
    if use.parent is not None:
        family = find_family(use.parent)
        return None if family is None else family.class_for(use.user_status)
    try:
        return find_model(use.product, use.user_status)
    except ModelError:
        return None
