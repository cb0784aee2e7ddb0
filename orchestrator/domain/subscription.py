"""Subscriptions: what customers have, as models that steps load, change and save."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self, TypedDict, Unpack, cast, overload
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from orchestrator.db import subscriptions as db
from orchestrator.db.subscriptions import StoredProduct
from orchestrator.db.subscriptions.neighbours import SubscriptionReference, read_neighbours
from orchestrator.db.thread_session import either_method, with_faces
from orchestrator.domain.conversion import choose_dates, convert_lifecycle, convert_product
from orchestrator.domain.defaults import build_new
from orchestrator.domain.definition import check_names, define_class, find_model
from orchestrator.domain.diff import flatten
from orchestrator.domain.fixed_inputs import read_fixed_inputs
from orchestrator.domain.loading import load_subscription
from orchestrator.domain.model import ProductModel, Subscription
from orchestrator.domain.rows import build_rows, walk_blocks
from orchestrator.domain.saving import prepare_save
from orchestrator.errors import ModelError
from orchestrator.types import JSON, SubscriptionLifecycle

_NOT_ASSIGNED = {
    "subscription_id": "it never changes",
    "product": "from_other_product(...) moves a subscription to another product",
    "status": "from_other_lifecycle(...) changes it, and the model's class with it",
    "insync": "only steps that take or release the lock change it",
    "version": "saving increments it",
}


class _OfNew(TypedDict, total=False):
    """What may be said of a new subscription."""

    status: SubscriptionLifecycle
    description: str | None
    insync: bool
    note: str | None
    subscription_id: UUID | None


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

    A class with neither keyword is abstract: several models may derive from it, and a step may ask for it.

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
        check_names(cls, SubscriptionModel)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        is_base: bool = False,
        lifecycle: Iterable[SubscriptionLifecycle | str] | None = None,
        **options: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**options)
        define_class(cls, SubscriptionModel, lifecycle, name=cls.__name__ if is_base else None, keyword="is_base=True")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _NOT_ASSIGNED:
            raise ModelError(f"{name!r} of a subscription cannot be assigned: {_NOT_ASSIGNED[name]}")
        if name in type(self).__shape__.values:
            raise ModelError(
                f"{name!r} of {type(self).__name__} is a fixed input, whose value belongs to the product {self.product.name!r}"
            )
        super().__setattr__(name, value)

    @overload
    @classmethod
    def from_product_id(
        cls, session: AsyncSession, product_id: UUID | str, customer_id: str, **more: Unpack[_OfNew]
    ) -> Coroutine[Any, Any, Self]: ...
    @overload
    @classmethod
    def from_product_id(
        cls, session: Session, product_id: UUID | str, customer_id: str, **more: Unpack[_OfNew]
    ) -> Self: ...
    @classmethod
    @with_faces
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
        """Make a new subscription, not saved yet, with the blocks that it needs, which are empty.

        Args:
            product_id: the product must be active.
            status: must be one that this class serves.
            description: default the product's name.
            insync: whether the lock is free as soon as it is saved; by default the process that saves it keeps it.
            subscription_id: default a new one.

        Raises:
            NotFoundError: there is no such product.
            ModelError: the product is not active or has another model, or the class does not serve the status.
        """
        status = SubscriptionLifecycle(status)
        product, found = await _load_active_product(session, product_id)
        model = find_model(product.name, status)
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
            **choose_dates(status),
        }
        return cast("Self", build_new(model, own, key, read_fixed_inputs(model, found), status))

    @overload
    @classmethod
    def from_subscription(cls, session: AsyncSession, subscription_id: UUID | str) -> Coroutine[Any, Any, Self]: ...
    @overload
    @classmethod
    def from_subscription(cls, session: Session, subscription_id: UUID | str) -> Self: ...
    @classmethod
    @with_faces
    async def from_subscription(cls, session: AsyncSession, subscription_id: UUID | str) -> Self:
        """Read a subscription, as the class for its product and status.

        Raises:
            NotFoundError: there is none.
            ModelError: it is not one of this class, or what is stored does not fit the class.
        """
        return cast("Self", await load_subscription(session, (cls,), subscription_id))

    @classmethod
    def from_other_lifecycle(cls, other: SubscriptionModel, status: SubscriptionLifecycle) -> Self:
        """Return the same subscription with another status, and thereby of another class. Not saved yet.

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
        return cast("Self", convert_lifecycle(other, SubscriptionLifecycle(status)))

    @overload
    @classmethod
    def from_other_product(
        cls,
        session: AsyncSession,
        other: SubscriptionModel,
        new_product_id: UUID | str,
        *,
        new_root: Mapping[str, object] | None = None,
    ) -> Coroutine[Any, Any, Self]: ...
    @overload
    @classmethod
    def from_other_product(
        cls,
        session: Session,
        other: SubscriptionModel,
        new_product_id: UUID | str,
        *,
        new_root: Mapping[str, object] | None = None,
    ) -> Self: ...
    @classmethod
    @with_faces
    async def from_other_product(
        cls,
        session: AsyncSession,
        other: SubscriptionModel,
        new_product_id: UUID | str,
        *,
        new_root: Mapping[str, object] | None = None,
    ) -> Self:
        """Return the same subscription moved to another product. Not saved yet.

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
        product, found = await _load_active_product(session, new_product_id)
        model = find_model(product.name, other.status)
        if not issubclass(model, cls):
            raise ModelError(
                f"the subscription {other.subscription_id} with status {other.status.value} is {model.__name__} as the product"
                f" {product.name!r}, not {cls.__name__}: write {model.__name__}.from_other_product(...)"
            )
        return cast("Self", convert_product(other, model, found, new_root or {}))

    @either_method
    async def save(self, session: AsyncSession) -> None:
        """Write what differs from what was loaded, in the transaction of a step's session; without a difference, nothing.

        When that is rolled back, or a savepoint in it, the next save writes the difference again.

        Raises:
            ModelError: something does not fit its field, is not registered in the database, belongs to another subscription,
                or is in use by one; or no process is behind the session.
            ConcurrentChangeError: the subscription was changed since it was loaded.
        """
        await prepare_save(self).store(session)

    @either_method
    async def in_use_by(self, session: AsyncSession) -> list[SubscriptionReference]:
        """Read the other subscriptions that refer directly to a block of this one, whatever their status."""
        return list((await read_neighbours(session, self.subscription_id)).in_use_by)

    @either_method
    async def depends_on(self, session: AsyncSession) -> list[SubscriptionReference]:
        """Read the other subscriptions to whose blocks this one refers directly, whatever their status."""
        return list((await read_neighbours(session, self.subscription_id)).uses)


def flat(subscription: SubscriptionModel) -> dict[str, JSON]:
    """Return everything that a subscription is, by the keys of its history, which adds up to this.

    What is ``None`` has no entry.
    """
    return flatten(build_rows(subscription, walk_blocks(subscription)))


async def _load_active_product(session: AsyncSession, product_id: UUID | str) -> tuple[ProductModel, StoredProduct]:
    found = await db.load_product(session, product_id)
    product = ProductModel.model_validate(found.product)
    if product.status != "active":
        raise ModelError(
            f"the product {product.name!r} is {product.status!r}, not active: only active products can be subscribed to"
        )
    return product, found
