"""The classes of one product block or subscription model: one per lifecycle, all of one family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PydanticUndefinedAnnotation

from orchestrator.domain.fields import BlockField, Shape, shape_of
from orchestrator.errors import DefinitionError
from orchestrator.types import Stored, SubscriptionLifecycle

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

    def forget(self, cls: type[Model]) -> None:
        """Take back what a class has claimed: it turned out to be wrong."""
        self._claims = {status: one for status, one in self._claims.items() if one is not cls}


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


def refuse_reserved_names(cls: type[DomainModel], engine: type[DomainModel]) -> None:
    """Keep a class from redefining what the engine's own base class has.

    Raises:
        DefinitionError: it does.
    """
    for name in inspect.get_annotations(cls):
        if not name.startswith("_") and (name in engine.model_fields or hasattr(engine, name)):
            raise DefinitionError(f"{cls.__name__}.{name}: the name {name!r} is the engine's own; choose another one")


def set_shape(cls: type[DomainModel], engine: type[DomainModel]) -> None:
    """Read the fields of a new class.

    Raises:
        DefinitionError: an annotation cannot be resolved or stored.
    """
    try:
        cls.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        raise DefinitionError(
            f"an annotation of {cls.__name__} names something that is not defined yet: {error.name!r}; define the blocks before"
            " what they stand in, and import what annotations name at run time, too"
        ) from error
    cls.__shape__ = shape_of(cls, frozenset(engine.model_fields))


def settle(
    cls: type[DomainModel],
    engine: type[DomainModel],
    lifecycle: Iterable[SubscriptionLifecycle | str],
    check_base: Callable[[type[DomainModel]], None],
) -> None:
    """Give a new class its place in its family.

    Args:
        engine: which of the engine's classes it derives from.
        lifecycle: what it claims.
        check_base: judges the class if it is the base.

    Raises:
        DefinitionError: it cannot work.
    """
    set_shape(cls, engine)
    family = cls.__family__
    try:
        # First, because a block may hold blocks of its own kind.
        family.claim(cls, lifecycle)
        if family.base is cls:
            check_base(cls)
        else:
            check_against_base(cls, family.base)
        check_lifecycles(cls, {*map(SubscriptionLifecycle, lifecycle), *family.starts_as(cls)})
    except DefinitionError:
        family.forget(cls)
        raise


def check_against_base(cls: type[DomainModel], base: type[DomainModel]) -> None:
    """Compare a class with the base of its family.

    Raises:
        DefinitionError: it has a field that its base does not have, or one of another kind.
    """
    mine, its = cls.__shape__, base.__shape__
    for name in (*mine.values, *mine.blocks):
        if name not in its.values and name not in its.blocks:
            raise DefinitionError(
                f"{cls.__name__}.{name}: the base {base.__name__} has no such field, and the base names all of them: add"
                f" '{name}' there, so that it may be empty"
            )
        if _kind(mine, name) != _kind(its, name):
            raise DefinitionError(
                f"{cls.__name__}.{name} is {_kind(mine, name)}, but {base.__name__}.{name} is {_kind(its, name)}"
            )


def _kind(shape: Shape, name: str) -> str:
    field = shape.blocks.get(name)
    if field is None:
        return "a value"
    return "a list of blocks" if field.many else "a block"


def check_lifecycles(cls: type[DomainModel], lifecycles: Iterable[SubscriptionLifecycle]) -> None:
    """Make sure that the blocks in a class's fields, as each lifecycle has them, are of the classes that it names.

    Raises:
        DefinitionError: they are not; the text says which class is expected.
    """
    for field in cls.__shape__.blocks.values():
        families = [one.__family__ for one in field.classes]
        names = [family.name for family in families]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DefinitionError(f"{cls.__name__}.{field.name} names two classes of the product block {twice[0]!r}")
        for status in lifecycles:
            for family in families:
                _check_lifecycle(cls, field, family, status)


def _check_lifecycle(
    cls: type[DomainModel], field: BlockField, family: Family[DomainModel], status: SubscriptionLifecycle
) -> None:
    expected = family.class_for(status)
    named = next(one for one in field.classes if one.__family__ is family)
    if not issubclass(expected, named):
        raise DefinitionError(
            f"{cls.__name__}.{field.name} names {named.__name__}, but in the lifecycle {status.name}, which {cls.__name__}"
            f" serves, a block {family.name!r} is {expected.__name__}: name {expected.__name__}, or let a class with"
            f" lifecycle=[SubscriptionLifecycle.{status.name}] derive from {named.__name__}"
        )


_families: dict[str, Family[Any]] = {}


def register_family(family: Family[Any]) -> None:
    """Make the classes of a product block known by its name.

    Raises:
        DefinitionError: another base class has the name.
    """
    known = _families.get(family.name)
    if known is not None and not is_same_place(known.base, family.base):
        raise DefinitionError(
            f"{family.base.__name__} and {known.base.__name__} are both the product block {family.name!r}: name each"
            " product block once, and derive its other classes from its base with lifecycle=[...]"
        )
    _families[family.name] = family


def family_named(name: str) -> Family[Any] | None:
    """The classes of a product block; ``None`` when no class of that name has been made."""
    return _families.get(name)
