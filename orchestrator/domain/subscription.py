"""Subscriptions: what customers have, as models that steps load, change and save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, cast
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import subscriptions as rows
from orchestrator.db.rollback_hooks import undo_on_rollback
from orchestrator.db.subscriptions.neighbours import SubscriptionReference, read_neighbours
from orchestrator.domain.difference import flat_rows
from orchestrator.domain.empty import check_blocks_can_start_empty, filled
from orchestrator.domain.family import refuse_reserved_names, settle
from orchestrator.domain.making import active_product, dates, in_lifecycle, loaded, of_product
from orchestrator.domain.model import Family, Subscription
from orchestrator.domain.product import check_fixed_inputs, fixed_inputs
from orchestrator.domain.registry import model_of
from orchestrator.domain.rows import reachable, subscription_rows
from orchestrator.domain.saving import judged
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import JSON, SubscriptionLifecycle

_NOT_ASSIGNED = {
    "subscription_id": "it never changes",
    "product": "from_other_product(...) moves a subscription to another product",
    "status": "from_other_lifecycle(...) changes it, and the model's class with it",
    "insync": "steps of their own take the lock and give it back",
    "version": "saving counts it",
}


class SubscriptionModel(Subscription):
    """What a customer has of a product.

    The first class of a model, its base, is made with ``is_base=True`` and names all its fields: blocks, and *fixed inputs*,
    whose values come from the product. Classes derived from it with ``lifecycle=[...]`` say what must be there in which status::

        class NodeInactive(SubscriptionModel, is_base=True):
            role: Role
            node: NodeBlockInactive

        class Node(NodeInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
            node: NodeBlock

        SUBSCRIPTION_MODEL_REGISTRY.update({"Node P": Node, "Node PE": Node})

    Raises:
        DefinitionError: when a class is made that cannot work; the text names class and field.
    """

    def __init_subclass__(
        cls,
        *,
        is_base: bool = False,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__init_subclass__(**options)
        refuse_reserved_names(cls, SubscriptionModel)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        is_base: bool = False,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**options)
        base = next((one for one in cls.__mro__[1:] if "__family__" in one.__dict__), None)
        if is_base:
            if base is not None:
                raise DefinitionError(
                    f"{cls.__name__} has is_base=True but derives from {base.__name__}, another base: derive from"
                    " SubscriptionModel, and share fields by a plain pydantic class beside it"
                )
            cls.__family__ = Family(cls.__name__, cls)
        elif base is None or lifecycle is None:
            raise DefinitionError(
                f"{cls.__name__} does not say when it is used: write is_base=True for the first class of a model, and"
                " lifecycle=[...] for a class derived from that"
            )
        settle(cls, SubscriptionModel, lifecycle or (), check_blocks_can_start_empty, check_fixed_inputs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NOT_ASSIGNED:
            raise ModelError(f"{name!r} of a subscription cannot be assigned: {_NOT_ASSIGNED[name]}")
        if name in type(self).__shape__.values:
            raise ModelError(
                f"{name!r} of {type(self).__name__} is a fixed input, whose value belongs to the product {self.product.name!r}"
            )
        super().__setattr__(name, value)

    @classmethod
    async def from_product_id(
        cls,
        session: AsyncSession,
        product_id: UUID | str,
        customer_id: str,
        *,
        status: SubscriptionLifecycle = SubscriptionLifecycle.INITIAL,
        description: str | None = None,
        insync: bool = False,
        note: str | None = None,
        subscription_id: UUID | None = None,
    ) -> Self:
        """A new subscription, which is not saved yet. Blocks that must be there are made, with nothing in them.

        Args:
            product_id: of what the customer wants; the product must be active.
            customer_id: whose it is.
            status: must be one that this class serves.
            description: for people; default the product's name.
            insync: whether it is free for other processes as soon as it is saved; by default the process that saves it keeps it.
            subscription_id: default a new one.

        Raises:
            NotFoundError: there is no such product.
            ModelError: the product is not active or has another model, or the class does not serve the status.
        """
        status = SubscriptionLifecycle(status)
        found = await rows.load_product(session, product_id)
        product = active_product(found)
        model = model_of(product.name, status)
        if cls not in (model, SubscriptionModel):
            raise ModelError(
                f"a new subscription of the product {product.name!r} with status {status.value} is {model.__name__}, not"
                f" {cls.__name__}: write {model.__name__}.from_product_id(...)"
            )
        key = subscription_id or uuid4()
        own = {
            "product": product,
            "customer_id": customer_id,
            "subscription_id": key,
            "description": product.name if description is None else description,
            "status": status,
            "insync": insync,
            "note": note,
            **dates(status),
        }
        return cast("Self", filled(model, own, key, fixed_inputs(model, found), status))

    @classmethod
    async def from_subscription(cls, session: AsyncSession, subscription_id: UUID | str) -> Self:
        """Read a subscription, as the class that its product and status ask for.

        Raises:
            NotFoundError: there is none.
            ModelError: it is not one of this class, or what is stored does not fit the class.
        """
        found = await rows.load(session, subscription_id)
        return cast("Self", loaded(found, (cls,)))

    @classmethod
    def from_other_lifecycle(cls, other: SubscriptionModel, status: SubscriptionLifecycle) -> Self:
        """The same subscription with another status, and thereby of another class. Not saved yet.

        When it becomes active and has no ``start_date`` it gets one, and when it is terminated its ``end_date``.

        Raises:
            ModelError: the class does not serve the status, or something that must be there is missing: the text names all of it.
        """
        model = type(other).__family__.class_for(status)
        if not issubclass(model, cls):
            raise ModelError(
                f"the subscription {other.subscription_id} with status {SubscriptionLifecycle(status).value} is"
                f" {model.__name__}, not {cls.__name__}: write {model.__name__}.from_other_lifecycle(...)"
            )
        return cast("Self", in_lifecycle(other, SubscriptionLifecycle(status)))

    @classmethod
    async def from_other_product(
        cls,
        session: AsyncSession,
        other: SubscriptionModel,
        new_product_id: UUID | str,
        *,
        new_root: Mapping[str, object] | None = None,
    ) -> Self:
        """The same subscription moved to another product. Not saved yet.

        Blocks in its fields stay, with all that is in them, if the new product has a field for the same product block; others
        are new. Fixed inputs come from the new product.

        Args:
            new_product_id: the product must be active.
            new_root: blocks for fields of the new model, by field; they go before those that would stay.

        Raises:
            NotFoundError: there is no such product.
            ModelError: the product is not active, its model for the present status is not this class, something that must
                be there is missing, or there is no place for all blocks of a kind.
        """
        found = await rows.load_product(session, new_product_id)
        product = active_product(found)
        model = model_of(product.name, other.status)
        if not issubclass(model, cls):
            raise ModelError(
                f"the subscription {other.subscription_id} with status {other.status.value} is {model.__name__} as the product"
                f" {product.name!r}, not {cls.__name__}: write {model.__name__}.from_other_product(...)"
            )
        return cast("Self", of_product(other, model, found, new_root or {}))

    async def save(self, session: AsyncSession) -> None:
        """Write what is different from what was loaded, in the transaction of a step's session; nothing else is sent.

        When that is rolled back, also by a savepoint, the model knows it, and the next save writes it again.

        Raises:
            ModelError: something does not fit its field, is not registered in the database, belongs to another subscription,
                or is in use by one; or no process is behind the session.
            ConcurrentChangeError: somebody else has changed the subscription since it was loaded.
        """
        found, now = judged(self)
        if found is None:
            return
        mine = [one for one in reachable(self).values() if one.owner_subscription_id == self.subscription_id]
        stored, version = self._stored, self.version
        before = [(one, one.as_stored) for one in mine]

        def undo() -> None:
            self.mark_as_stored(stored, version)
            for one, row in before:
                one.mark_as_stored(row)

        new_version = await rows.store(session, found)
        await undo_on_rollback(session, undo)
        self.mark_as_stored(now, new_version)
        for one in mine:
            one.mark_as_stored(now.blocks[one.subscription_instance_id])

    async def in_use_by(self, session: AsyncSession) -> list[SubscriptionReference]:
        """The other subscriptions that refer directly to a block of this one, whatever their status, as the database has it."""
        return list((await read_neighbours(session, self.subscription_id)).in_use_by)

    async def depends_on(self, session: AsyncSession) -> list[SubscriptionReference]:
        """The other subscriptions to whose blocks this one refers directly, whatever their status, as the database has it."""
        return list((await read_neighbours(session, self.subscription_id)).uses)


def flat(subscription: SubscriptionModel) -> dict[str, JSON]:
    """Return everything that a subscription is, by the keys of its history, which adds up to this.

    What is ``None`` has no entry.
    """
    return flat_rows(subscription_rows(subscription))
