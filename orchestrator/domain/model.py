"""Subscriptions and product blocks as values: their fields, their families of classes, and the rows they were read from.

Nothing here needs a session: the classes that authors derive from stand on top, in ``block`` and ``subscription``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo

from orchestrator.db.subscriptions import StoredBlock, StoredSubscription
from orchestrator.errors import DefinitionError
from orchestrator.types import JSON, Stored, SubscriptionLifecycle

Model = TypeVar("Model", bound="DomainModel")


@dataclass(frozen=True, slots=True)
class BlockField:
    """A field that holds a block, or a list of blocks.

    Args:
        classes: what the annotation names: one class, or the members of a union.
        many: whether it is a list; ``minimum`` and ``maximum`` are how many blocks it must and may have.
        optional: whether it may be ``None``.
    """

    name: str
    classes: tuple[type[Block], ...]
    many: bool
    optional: bool
    minimum: int
    maximum: int | None = None

    @property
    def starts_with(self) -> int:
        """How many blocks a new model needs here."""
        if self.many:
            return self.minimum
        return 0 if self.optional else 1


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields that an author has given a model.

    Args:
        values: fields with values of their own; ``nullable`` are those of them that may be ``None``.
        blocks: fields that hold blocks.
    """

    values: tuple[str, ...]
    nullable: frozenset[str]
    blocks: Mapping[str, BlockField]


class Family(Generic[Model]):
    """All classes of one product block or subscription model, by the lifecycles that each serves.

    Args:
        name: the name of the product block; of a subscription model that of its base class.
        base: names all fields, and serves every lifecycle that no other class claims.
    """

    def __init__(self, name: str, base: type[Model]) -> None:
        self.name = name
        self.base = base
        self._claims: dict[SubscriptionLifecycle, type[Model]] = {}
        self._stores_none: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"<the classes of {self.name}>"

    def class_for(self, status: SubscriptionLifecycle | str) -> type[Model]:
        """Return the class for a subscription of this status, or for a block of such a subscription."""
        return self._claims.get(SubscriptionLifecycle(status), self.base)

    @property
    def classes(self) -> tuple[type[Model], ...]:
        """All classes, the base first."""
        return tuple(dict.fromkeys([self.base, *self._claims.values()]))

    def lifecycles_of(self, cls: type[Model]) -> tuple[SubscriptionLifecycle, ...]:
        """Return the lifecycles that a class serves."""
        return tuple(status for status in SubscriptionLifecycle if self.class_for(status) is cls)

    def stores_none(self, name: str) -> bool:
        """Return whether ``None`` in a field must be written: some class of the family would read its absence as a default."""
        if name not in self._stores_none:
            self._stores_none[name] = any(
                name in cls.__shape__.nullable and not (field.is_required() or _defaults_to_none(field))
                for cls in self.classes
                for field in [cls.model_fields[name]]
            )
        return self._stores_none[name]

    def claim(self, cls: type[Model], lifecycle: Iterable[SubscriptionLifecycle | str]) -> None:
        """Let a class serve some lifecycles.

        Raises:
            DefinitionError: a lifecycle does not exist, or another class has claimed it.
        """
        if isinstance(lifecycle, str):
            raise DefinitionError(
                f"{cls.__name__}: lifecycle= is a list, not {str(lifecycle)!r}: write lifecycle=[...]"
            )
        for word in lifecycle:
            try:
                status = SubscriptionLifecycle(word)
            except ValueError as error:
                known = ", ".join(one.name for one in SubscriptionLifecycle)
                raise DefinitionError(
                    f"{cls.__name__} claims the lifecycle {word!r}, which does not exist: use one of {known}"
                ) from error
            other = self._claims.get(status)
            if other is not None and not is_same_definition(other, cls):
                raise DefinitionError(
                    f"{cls.__name__} claims the lifecycle {status.name}, which {other.__name__} has claimed already: a"
                    " lifecycle is served by one class of a family"
                )
            self._claims[status] = cls
        self._stores_none.clear()

    def forget(self, cls: type[Model]) -> None:
        """Drop the claims of a class that was refused."""
        self._claims = {status: one for status, one in self._claims.items() if one is not cls}
        self._stores_none.clear()


def _defaults_to_none(field: FieldInfo) -> bool:
    return field.default_factory is None and field.default is None


def is_same_definition(one: type, other: type) -> bool:
    """Return whether two classes are one definition, executed twice because its module was imported again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


class DomainModel(BaseModel, Stored):
    """What subscriptions and blocks have in common. Not for authors: derive from the two."""

    model_config = ConfigDict(
        validate_assignment=True,
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
        # Refused when the model is saved: JSON as the database reads it has no such numbers.
        ser_json_inf_nan="constants",
    )

    __shape__: ClassVar[Shape] = Shape((), frozenset(), {})
    __family__: ClassVar[Family[Any]]

    def __eq__(self, other: object) -> bool:
        # The rows that a model was read from are no part of its value.
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class ProductModel(BaseModel):
    """The product that a subscription is of."""

    model_config = ConfigDict(frozen=True)

    product_id: UUID
    name: str
    description: str
    product_type: str
    tag: str
    status: str


class Block(DomainModel):
    """A product block as a value. Authors derive from :class:`orchestrator.domain.ProductBlockModel`."""

    reference_key: ClassVar[str] = "subscription_instance_id"
    product_block_name: ClassVar[str]

    subscription_instance_id: UUID = Field(default_factory=uuid4, frozen=True)
    owner_subscription_id: UUID = Field(frozen=True)
    label: str | None = None

    _stored: StoredBlock | None = PrivateAttr(default=None)

    def reference(self) -> dict[str, JSON]:
        """Return what the state of a process holds of the block."""
        return {
            "subscription_instance_id": str(self.subscription_instance_id),
            "owner_subscription_id": str(self.owner_subscription_id),
            "name": self.product_block_name,
        }

    @property
    def as_stored(self) -> StoredBlock | None:
        """The block's rows when it was read or saved last; ``None`` for a new one."""
        return self._stored

    def mark_as_stored(self, row: StoredBlock | None) -> None:
        """Remember what the database has of the block. Only for the engine."""
        self._stored = row


class Subscription(DomainModel):
    """A subscription as a value. Authors derive from :class:`orchestrator.domain.SubscriptionModel`."""

    reference_key: ClassVar[str] = "subscription_id"

    product: ProductModel
    customer_id: str
    subscription_id: UUID = Field(default_factory=uuid4)
    description: str
    status: SubscriptionLifecycle = SubscriptionLifecycle.INITIAL
    insync: bool = False
    start_date: AwareDatetime | None = None
    end_date: AwareDatetime | None = None
    note: str | None = None
    version: int = 0

    _stored: StoredSubscription | None = PrivateAttr(default=None)

    def reference(self) -> dict[str, JSON]:
        """Return what the state of a process holds of the subscription."""
        return {
            "subscription_id": str(self.subscription_id),
            "product": self.product.name,
            "description": self.description,
            "status": self.status.value,
            "version": self.version,
        }

    @property
    def as_stored(self) -> StoredSubscription | None:
        """The subscription's rows when it was read or saved last; ``None`` for a new one."""
        return self._stored

    def mark_as_stored(self, now: StoredSubscription | None, version: int) -> None:
        """Remember what the database has of the subscription. Only for the engine."""
        self._stored = now
        self.__dict__["version"] = version


def is_block(annotation: object) -> bool:
    """Return whether an annotation is the class of a product block."""
    return isinstance(annotation, type) and issubclass(annotation, Block)


def describe(model: DomainModel) -> str:
    """Name a model in an error text."""
    if isinstance(model, Block):
        return f"the block {type(model).__family__.name} {model.subscription_instance_id}"
    return f"the subscription {getattr(model, model.reference_key)}"
