"""Product blocks: the parts that subscriptions are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as rows
from orchestrator.db.subscriptions import BlockReference, FoundBlock
from orchestrator.domain.assembly import STORED_OTHERWISE, Assembly, raise_problems
from orchestrator.domain.empty import check_can_start_empty, filled
from orchestrator.domain.family import refuse_reserved_names, register_family, settle
from orchestrator.domain.model import Block, Family
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle


class ProductBlockModel(Block):
    """A product block: a named group of values, and of further blocks.

    The first class of a block, its base, is made with ``product_block_name=`` and names all its fields, so that each may be
    empty. Classes derived from it with ``lifecycle=[...]`` say what must be there in which status of the subscription::

        class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
            node_name: str | None = None

        class NodeBlock(NodeBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
            node_name: str

    Raises:
        DefinitionError: when a class is made that cannot work; the text names class and field.
    """

    def __init_subclass__(
        cls,
        *,
        product_block_name: str | None = None,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        refuse_reserved_names(cls, ProductBlockModel)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        product_block_name: str | None = None,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**options)
        base = next((one for one in cls.__mro__[1:] if "__family__" in one.__dict__), None)
        if product_block_name is not None:
            if base is not None:
                raise DefinitionError(
                    f"{cls.__name__} has a product_block_name but derives from {base.__name__}, another product block: derive"
                    " from ProductBlockModel, and share fields by a plain pydantic class beside it"
                )
            cls.product_block_name = product_block_name
            cls.__family__ = Family(product_block_name, cls)
        elif base is None or lifecycle is None:
            raise DefinitionError(
                f"{cls.__name__} says neither which product block it is nor when it is used: write product_block_name='...'"
                " for the first class of a block, and lifecycle=[...] for a class derived from that"
            )
        settle(cls, ProductBlockModel, lifecycle or (), check_can_start_empty)
        if base is None:
            register_family(cls.__family__)

    @classmethod
    def new(cls, subscription_id: UUID, **values: Any) -> Self:
        """A new block of a subscription; blocks that must stand in its fields are new, too, unless they are given.

        Args:
            subscription_id: of the subscription that the block is to belong to.
            values: of its fields.

        Raises:
            ModelError: a value is missing or does not fit.
        """
        return filled(cls, {"owner_subscription_id": subscription_id}, subscription_id, values)

    @classmethod
    async def from_db(cls, session: AsyncSession, subscription_instance_id: UUID | str) -> Self:
        """Read a block, as the class that the status of its subscription asks for.

        Raises:
            NotFoundError: there is none.
            ModelError: it is not one of this class, or what is stored does not fit the class.
        """
        block_id, found = await rows.load_block(session, subscription_instance_id)
        return cast("Self", loaded_block(found, block_id, (cls,)))

    @property
    def name(self) -> str:
        """The name of the product block."""
        return self.product_block_name

    async def in_use_by(self, session: AsyncSession) -> list[BlockReference]:
        """The blocks that have this one in a field, as the database has it."""
        return await rows.list_blocks_using(session, self.subscription_instance_id)

    async def depends_on(self, session: AsyncSession) -> list[BlockReference]:
        """The blocks that this one has in its fields, as the database has it."""
        return await rows.list_blocks_used_by(session, self.subscription_instance_id)


def loaded_block(
    found: Mapping[UUID, FoundBlock], block_id: UUID, wanted: tuple[type[ProductBlockModel], ...]
) -> ProductBlockModel:
    """What was read, as the class that the status of the block's subscription asks for.

    Raises:
        ModelError: that is none of the wanted classes, or what is stored does not fit it.
    """
    assembly = Assembly(found)
    block = assembly.root(block_id)
    row, status = found[block_id].stored, found[block_id].owner_status
    what = f"the block {row.name} {block_id} of the subscription {row.owner} ({status})"
    raise_problems(assembly, f"{what} does not fit its class", STORED_OTHERWISE)
    if not isinstance(block, wanted):
        names = " or ".join(one.__name__ for one in wanted)
        raise ModelError(f"{what} is {type(block).__name__}; {names} was asked for")
    return block
