"""Loading what a step asks for: a subscription or a block, of one of the classes that its annotation names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as rows
from orchestrator.domain.block import ProductBlockModel, loaded_block
from orchestrator.domain.making import loaded
from orchestrator.domain.subscription import SubscriptionModel
from orchestrator.errors import DefinitionError
from orchestrator.types import Stored


async def load_stored(
    session: AsyncSession, classes: Sequence[type[Stored]], reference: UUID | str
) -> SubscriptionModel | ProductBlockModel:
    """Read a subscription or a block, as the class that product and status ask for.

    Args:
        classes: what it may be an instance of: subscriptions or blocks, not both.
        reference: its id.

    Raises:
        DefinitionError: the classes are of different kinds.
        NotFoundError: there is none.
        ModelError: it is of another class, or what is stored does not fit its class.
    """
    subscriptions = tuple(one for one in classes if issubclass(one, SubscriptionModel))
    blocks = tuple(one for one in classes if issubclass(one, ProductBlockModel))
    if subscriptions and len(subscriptions) == len(classes):
        return cast("SubscriptionModel", loaded(await rows.load(session, reference), subscriptions))
    if blocks and len(blocks) == len(classes):
        block_id, found = await rows.load_block(session, reference)
        return loaded_block(found, block_id, blocks)
    names = ", ".join(one.__name__ for one in classes)
    raise DefinitionError(f"a subscription or a product block can be loaded, not one of: {names or 'nothing'}")
