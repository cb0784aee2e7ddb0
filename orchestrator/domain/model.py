"""What subscriptions and their blocks are, as values: fields, families of classes, and what a model remembers of its rows."""

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

BLOCK_KEY = "subscription_instance_id"
"""Where a reference to a block has its id; it tells the classes of blocks from those of subscriptions."""


@dataclass(frozen=True, slots=True)
class BlockField:
    """A field in which one block stands, or a list of them.

    Args:
        classes: what the annotation names: one class, or the members of a union.
        many: whether it is a list; ``minimum`` and ``maximum`` are how many blocks it must and may have.
        optional: whether ``None`` may stand there.
    """

    name: str
    classes: tuple[type[Block], ...]
    many: bool
    optional: bool
    minimum: int
    maximum: int | None = None

    @property
    def starts_with(self) -> int:
        """How many new blocks a new model has here: those that cannot be left out."""
        if self.many:
            return self.minimum
        return 0 if self.optional else 1


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields that authors have given a model.

    Args:
        values: fields with values of their own; ``nullable`` are those of them in which ``None`` may stand.
        blocks: fields in which blocks stand.
    """

    values: tuple[str, ...]
    nullable: frozenset[str]
    blocks: Mapping[str, BlockField]


Model = TypeVar("Model", bound="DomainModel")


class Family(Generic[Model]):
    """All classes of one product block or of one subscription model, by the lifecycle that each serves.

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
        """The class that a subscription of this status, or a block of such a one, is an instance of."""
        return self._claims.get(SubscriptionLifecycle(status), self.base)

    @property
    def classes(self) -> tuple[type[Model], ...]:
        """All classes, the base first."""
        return tuple(dict.fromkeys([self.base, *self._claims.values()]))

    def served_by(self, cls: type[Model]) -> tuple[SubscriptionLifecycle, ...]:
        """The lifecycles that a class serves."""
        return tuple(status for status in SubscriptionLifecycle if self.class_for(status) is cls)

    def starts_as(self, cls: type[Model]) -> tuple[SubscriptionLifecycle, ...]:
        """The lifecycle of everything new, if the class serves that."""
        return tuple({SubscriptionLifecycle.INITIAL} & set(self.served_by(cls)))

    def stores_none(self, name: str) -> bool:
        """Whether ``None`` in a field must be written: for some class of the family its absence would mean something else."""
        if name not in self._stores_none:
            self._stores_none[name] = any(
                name in cls.__shape__.nullable and not (field.is_required() or _is_none_by_default(field))
                for cls in self.classes
                for field in [cls.model_fields[name]]
            )
        return self._stores_none[name]

    def claim(self, cls: type[Model], lifecycle: Iterable[SubscriptionLifecycle | str]) -> None:
        """Let a class serve some lifecycles.

        Raises:
            DefinitionError: there is no such lifecycle, or another class has claimed it.
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
                raise DefinitionError(f"{cls.__name__} claims the lifecycle {word!r}: there are {known}") from error
            other = self._claims.get(status)
            if other is not None and not is_same_place(other, cls):
                raise DefinitionError(
                    f"{cls.__name__} claims the lifecycle {status.name}, which {other.__name__} has claimed already: a"
                    " lifecycle is served by one class of a family"
                )
            self._claims[status] = cls
        self._stores_none.clear()

    def forget(self, cls: type[Model]) -> None:
        """Take back what a class has claimed: it turned out to be wrong."""
        self._claims = {status: one for status, one in self._claims.items() if one is not cls}
        self._stores_none.clear()


def _is_none_by_default(field: FieldInfo) -> bool:
    return field.default_factory is None and field.default is None


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
        # What a model remembers of its rows says nothing about what it is.
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


def is_same_place(one: type, other: type) -> bool:
    """Whether two classes are one definition, made twice because its module was imported again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


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

    reference_key: ClassVar[str] = BLOCK_KEY
    product_block_name: ClassVar[str]

    subscription_instance_id: UUID = Field(default_factory=uuid4, frozen=True)
    owner_subscription_id: UUID = Field(frozen=True)
    label: str | None = None

    _stored: StoredBlock | None = PrivateAttr(default=None)

    def reference(self) -> dict[str, JSON]:
        """What the state of a process holds of the block."""
        return {
            "subscription_instance_id": str(self.subscription_instance_id),
            "owner_subscription_id": str(self.owner_subscription_id),
            "name": self.product_block_name,
        }

    @property
    def as_stored(self) -> StoredBlock | None:
        """What the block was when it was read from the database or saved; ``None`` for a new one."""
        return self._stored

    def mark_as_stored(self, row: StoredBlock | None) -> None:
        """Remember that the database has this. Only for the engine."""
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
        """What the state of a process holds of the subscription."""
        return {
            "subscription_id": str(self.subscription_id),
            "product": self.product.name,
            "description": self.description,
            "status": self.status.value,
            "version": self.version,
        }

    @property
    def as_stored(self) -> StoredSubscription | None:
        """What the subscription was when it was read from the database or saved; ``None`` for a new one."""
        return self._stored

    def mark_as_stored(self, now: StoredSubscription | None, version: int) -> None:
        """Remember that the database has this. Only for the engine."""
        self._stored = now
        self.__dict__["version"] = version
