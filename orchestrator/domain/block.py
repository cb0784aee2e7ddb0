"""Product blocks: the parts that subscriptions are made of."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Self, cast, overload
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.db import subscriptions as db
from orchestrator.db.subscriptions import BlockReference
from orchestrator.db.thread_session import either_method, with_faces
from orchestrator.domain.defaults import build_new
from orchestrator.domain.definition import check_names, define_class, register_family
from orchestrator.domain.loading import load_block
from orchestrator.domain.model import Block, Subscription
from orchestrator.domain.rows import walk_blocks
from orchestrator.types import SubscriptionLifecycle


class ProductBlockModel(Block):
    """A product block: a named group of values, and of further blocks.

    The first class of a block, its base, is made with ``product_block_name=`` and names all its fields, so that each may be
    empty. Classes derived from it with ``lifecycle=[...]`` say what must be there in which status of the subscription::

        class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
            node_name: str | None = None

        class NodeBlock(NodeBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
            node_name: str

    A class with neither keyword is abstract: several product blocks may derive from it, and share its fields. A step may ask for
    it, and gets whichever it is; a field names the blocks themselves.

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
        check_names(cls, ProductBlockModel)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        product_block_name: str | None = None,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**options)
        if product_block_name is not None:
            cls.product_block_name = product_block_name
        define_class(cls, ProductBlockModel, lifecycle, name=product_block_name, keyword="product_block_name='...'")
        if product_block_name is not None:
            register_family(cls.__family__)

    @classmethod
    def new(cls, subscription_id: UUID, **values: Any) -> Self:
        """Make a new block of a subscription; blocks that its fields need are new, too, unless they are given.

        Args:
            subscription_id: of the subscription that the block is to belong to.
            values: of its fields.

        Raises:
            ModelError: a value is missing or does not fit.
        """
        return build_new(cls, {"owner_subscription_id": subscription_id}, subscription_id, values)

    @overload
    @classmethod
    def from_db(cls, session: AsyncSession, subscription_instance_id: UUID | str) -> Coroutine[Any, Any, Self]: ...
    @overload
    @classmethod
    def from_db(cls, session: Session, subscription_instance_id: UUID | str) -> Self: ...
    @classmethod
    @with_faces
    async def from_db(cls, session: AsyncSession, subscription_instance_id: UUID | str) -> Self:
        """Read a block, as the class for the status of its subscription.

        Raises:
            NotFoundError: there is none.
            ModelError: it is not one of this class, or what is stored does not fit the class.
        """
        return cast("Self", await load_block(session, (cls,), subscription_instance_id))

    def move_to(self, subscription: Subscription) -> Self:
        """Let the block belong to another subscription, with everything below it that belongs to the same one. Not saved yet.

        It keeps its id, and others that use it go on. Put it into a field of that subscription, take it out of its former owner's
        unless that goes on using it, and return both subscriptions from one step.

        Returns:
            The block itself.
        """
        owner = self.owner_subscription_id
        parts: list[Block] = [self, *walk_blocks(self).blocks.values()]
        for block in parts:
            if block.owner_subscription_id == owner:
                # The field is frozen for authors: who assigns it alone leaves what is below behind.
                block.__dict__["owner_subscription_id"] = subscription.subscription_id
        return self

    @property
    def name(self) -> str:
        """The name of the product block."""
        return self.product_block_name

    @either_method
    async def in_use_by(self, session: AsyncSession) -> list[BlockReference]:
        """Read the blocks that have this one in a field."""
        return await db.list_blocks_using(session, self.subscription_instance_id)

    @either_method
    async def depends_on(self, session: AsyncSession) -> list[BlockReference]:
        """Read the blocks that this one has in its fields."""
        return await db.list_blocks_used_by(session, self.subscription_instance_id)
