"""The classes of one product block or subscription model: one per lifecycle, all of one family."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import PydanticUndefinedAnnotation

from orchestrator.domain.fields import shape_of
from orchestrator.domain.model import BlockField, DomainModel, Family, Shape, is_same_place
from orchestrator.errors import DefinitionError
from orchestrator.types import SubscriptionLifecycle


def refuse_reserved_names(cls: type[DomainModel], engine: type[DomainModel]) -> None:
    """Keep a class from redefining what the engine's own base class has.

    Raises:
        DefinitionError: it does.
    """
    for one in cls.__mro__:
        if one in engine.__mro__:
            continue
        own = inspect.get_annotations(one)
        for name in (*own, *(name for name in vars(one) if name in engine.model_fields)):
            if name.startswith("_") or not (name in engine.model_fields or hasattr(engine, name)):
                continue
            if one is cls:
                raise DefinitionError(
                    f"{cls.__name__}.{name}: the name {name!r} is the engine's own; choose another one"
                )
            if name != "model_config":
                raise DefinitionError(
                    f"{cls.__name__} derives from {one.__name__}, which has {name!r}: that name is the engine's own; choose"
                    " another one there"
                )


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
    _refuse_settings(cls)
    cls.__shape__ = shape_of(cls, frozenset(engine.model_fields))


def _refuse_settings(cls: type[DomainModel]) -> None:
    """Keep a class from settings with which something would not be stored, or stored of a copy."""
    if cls.model_config.get("extra") == "allow":
        raise DefinitionError(
            f"{cls.__name__} has extra='allow', but only fields are stored: leave that out, and name what it is to hold"
        )
    if cls.model_config.get("revalidate_instances", "never") != "never":
        raise DefinitionError(
            f"{cls.__name__} has revalidate_instances, with which models in fields would be copies: leave that out;"
            " everything is validated when it is saved"
        )
    serializers = cls.__pydantic_decorators__.model_serializers
    if serializers:
        raise DefinitionError(
            f"{cls.__name__}.{next(iter(serializers))} is a model_serializer, but values are stored field by field: write a"
            " field_serializer for the field that needs one"
        )


def settle(
    cls: type[DomainModel],
    engine: type[DomainModel],
    lifecycle: Iterable[SubscriptionLifecycle | str],
    check_base: Callable[[type[DomainModel]], None],
    check: Callable[[type[DomainModel]], None] | None = None,
) -> None:
    """Give a new class its place in its family.

    Args:
        engine: which of the engine's classes it derives from.
        lifecycle: what it claims.
        check_base: judges the class if it is the base.
        check: judges the class in any case.

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
        check_ways_out(cls)
        if check is not None:
            check(cls)
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


def check_ways_out(cls: type[DomainModel]) -> None:
    """Make sure that no block in a field of a class keeps a subscription from the lifecycles that it must be able to get to.

    Of what a later lifecycle asks for somebody will see to it that it is there; nobody does for one that it goes back to. Such
    are those of the base, and the end of what was active.

    Raises:
        DefinitionError: a field of the class takes something that the same field of such a lifecycle's class does not.
    """
    family = cls.__family__
    active, terminated = (
        family.class_for(status) for status in (SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.TERMINATED)
    )
    for one, other in ((cls, family.base), (active, terminated)):
        if one is other or cls not in (one, other) or one is family.base:
            continue  # as long as the base serves what is active, a class for that may be made yet
        back = ", ".join(status.value for status in family.served_by(other))
        for name, field in one.__shape__.blocks.items():
            wrong = _too_narrow(field, other.__shape__.blocks[name])
            if wrong is not None:
                raise DefinitionError(
                    f"{one.__name__}.{name} {wrong[0]}, but {other.__name__}.{name} {wrong[1]}, so that a subscription could not"
                    f" become {back} with it: let {other.__name__} take whatever {one.__name__} takes"
                )


def _too_narrow(field: BlockField, other: BlockField) -> tuple[str, str] | None:
    """What a field takes and another does not, if anything: the two in words."""
    names, known = ([one.__family__.name for one in each.classes] for each in (field, other))
    for name in names:
        if name not in known:
            return f"takes a block {name!r}", f"takes {' or '.join(map(repr, known))} only"
    if field.optional and not other.optional:
        return "may be None", "must hold a block"
    if field.minimum < other.minimum:
        return f"may hold {field.minimum or 'no'} blocks", f"must hold {other.minimum} at least"
    if other.maximum is not None and (field.maximum is None or field.maximum > other.maximum):
        many = "any number of" if field.maximum is None else field.maximum
        return f"may hold {many} blocks", f"holds {other.maximum} at most"
    return None


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
