"""Define models: check each new class, add it to its family, and register families and products by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import PydanticUndefinedAnnotation

from orchestrator.domain.annotations import read_shape
from orchestrator.domain.defaults import check_defaults
from orchestrator.domain.fixed_inputs import check_fixed_inputs
from orchestrator.domain.model import BlockField, DomainModel, Family, Shape, Subscription, is_same_definition
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle

_families: dict[str, Family[Any]] = {}


class SubscriptionModelRegistry(dict[str, type[Subscription]]):
    """A dict from the names of products to their models, any class of the model's family; it checks each entry.

    Raises:
        DefinitionError: the value is no subscription model, or the product has another one already.
    """

    def __setitem__(self, product: str, model: type[Subscription]) -> None:
        if not isinstance(product, str) or not product:
            raise DefinitionError(
                f"SUBSCRIPTION_MODEL_REGISTRY maps names of products to their models, not {product!r}"
            )
        what = f"SUBSCRIPTION_MODEL_REGISTRY[{product!r}]"
        if not (isinstance(model, type) and issubclass(model, Subscription) and hasattr(model, "__family__")):
            raise DefinitionError(f"{what} is {model!r}: put in a class that derives from SubscriptionModel")
        known = self.get(product)
        if known is not None and not is_same_definition(known.__family__.base, model.__family__.base):
            raise DefinitionError(f"{what} is {known.__name__} already, and cannot be {model.__name__} as well")
        super().__setitem__(product, model)

    def update(self, *models: Any, **more: Any) -> None:
        for product, model in dict(*models, **more).items():
            self[product] = model

    def setdefault(self, product: str, model: Any = None) -> Any:
        if product not in self:
            self[product] = model
        return self[product]

    def __ior__(self, models: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Any:  # type: ignore[override,misc]
        self.update(models)
        return self


SUBSCRIPTION_MODEL_REGISTRY = SubscriptionModelRegistry()
"""The model of each product, by the product's name. Projects fill it where they define their models."""


def find_model(product: str, status: SubscriptionLifecycle | str) -> type[Subscription]:
    """Return the class of a product's subscriptions of this status.

    Raises:
        ModelError: no model is registered for the product.
    """
    registered = SUBSCRIPTION_MODEL_REGISTRY.get(product)
    if registered is None:
        known = ", ".join(sorted(SUBSCRIPTION_MODEL_REGISTRY)) or "none"
        raise ModelError(
            f"no model is registered for the product {product!r}: add it to SUBSCRIPTION_MODEL_REGISTRY in a module of"
            f" ORCHESTRATOR_WORKFLOWS (registered: {known})"
        )
    return registered.__family__.class_for(status)


def find_family(product_block_name: str) -> Family[Any] | None:
    """Return the classes of a product block; ``None`` when no class of that name is defined."""
    return _families.get(product_block_name)


def register_family(family: Family[Any]) -> None:
    """Register the classes of a product block under its name.

    Raises:
        DefinitionError: another base class has the name.
    """
    known = _families.get(family.name)
    if known is not None and not is_same_definition(known.base, family.base):
        raise DefinitionError(
            f"{family.base.__name__} and {known.base.__name__} are both the product block {family.name!r}: name each"
            " product block once, and derive its other classes from its base with lifecycle=[...]"
        )
    _families[family.name] = family


def check_names(cls: type[DomainModel], engine: type[DomainModel]) -> None:
    """Check that a class does not redefine what the engine's base class has.

    Raises:
        DefinitionError: it does.
    """
    for one in cls.__mro__:
        if one in engine.__mro__:
            continue
        for name in (*inspect.get_annotations(one), *(name for name in vars(one) if name in engine.model_fields)):
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


def define_class(
    cls: type[DomainModel],
    engine: type[DomainModel],
    lifecycle: Iterable[SubscriptionLifecycle | str] | None,
    *,
    name: str | None,
    keyword: str,
) -> None:
    """Check a new class and add it to its family.

    A class with neither a name nor a lifecycle, which derives from no family, is abstract: several families share its fields.

    Args:
        engine: the engine's class that it derives from.
        lifecycle: the lifecycles that it claims.
        name: of the family that it founds, if it does.
        keyword: with which a class founds a family, for error texts.

    Raises:
        DefinitionError: the class cannot work; the text names class and field.
    """
    base = next((one for one in cls.__mro__[1:] if "__family__" in one.__dict__), None)
    if name is None and base is None and lifecycle is None:
        return
    if name is None and (base is None or lifecycle is None):
        raise DefinitionError(
            f"{cls.__name__} does not say when it is used: write {keyword} for the first class of a family, and"
            " lifecycle=[...] for a class derived from that"
        )
    if name is not None:
        if base is not None:
            raise DefinitionError(
                f"{cls.__name__} has {keyword} but derives from {base.__name__}, which has it already: derive from"
                f" {engine.__name__}, and share fields by an abstract class, which has neither {keyword} nor lifecycle="
            )
        _check_family_name(cls, name, keyword)
        cls.__family__ = Family(name, cls)
    _set_shape(cls, engine)
    family, lifecycle = cls.__family__, lifecycle or ()
    try:
        # First, because a block may hold blocks of its own kind.
        family.claim(cls, lifecycle)
        if family.base is cls:
            check_defaults(cls)
        else:
            _check_against_base(cls, family.base)
        _check_fallbacks(cls)
        if issubclass(cls, Subscription):
            check_fixed_inputs(cls)
        served = {SubscriptionLifecycle.INITIAL} & {*family.lifecycles_of(cls)}
        _check_lifecycles(cls, {*map(SubscriptionLifecycle, lifecycle), *served})
    except DefinitionError:
        family.forget(cls)
        raise


def _check_family_name(cls: type[DomainModel], name: object, keyword: str) -> None:
    # What a migration would refuse as the name of a product block is refused where it is written.
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or name != name.strip():
        raise DefinitionError(
            f"{cls.__name__}: {keyword.partition('=')[0]} must be text that can be printed, without blanks at its ends, not"
            f" {name!r}"
        )


def _set_shape(cls: type[DomainModel], engine: type[DomainModel]) -> None:
    try:
        cls.model_rebuild()
    except PydanticUndefinedAnnotation as error:
        raise DefinitionError(
            f"an annotation of {cls.__name__} names something that is not defined yet: {error.name!r}; define blocks before the"
            " classes that hold them, and import what annotations name at run time, too; of two blocks that name each other one"
            " holds the other, and finds what holds it with in_use_by(session)"
        ) from error
    if cls.model_config.get("extra") == "allow":
        raise DefinitionError(
            f"{cls.__name__} has extra='allow', but only fields are stored: leave that out, and declare a field for each value"
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
    cls.__shape__ = read_shape(cls, frozenset(engine.model_fields))


def _check_against_base(cls: type[DomainModel], base: type[DomainModel]) -> None:
    """Check that the base of the family has every field of a class, as a field of the same kind."""
    mine, its = cls.__shape__, base.__shape__
    for name in (*mine.values, *mine.blocks):
        if name not in its.values and name not in its.blocks:
            raise DefinitionError(
                f"{cls.__name__}.{name}: the base {base.__name__} has no such field, and the base names all of them: add"
                f" '{name}' there, so that it may be empty"
            )
        if _name_kind(mine, name) != _name_kind(its, name):
            raise DefinitionError(
                f"{cls.__name__}.{name} is {_name_kind(mine, name)}, but {base.__name__}.{name} is {_name_kind(its, name)}"
            )


def _name_kind(shape: Shape, name: str) -> str:
    field = shape.blocks.get(name)
    if field is None:
        return "a value"
    return "a list of blocks" if field.many else "a block"


def _check_fallbacks(cls: type[DomainModel]) -> None:
    """Check that every block allowed here is also allowed in the classes a subscription can fall back to.

    These are the base class, and the class for ``terminated``. What a later lifecycle requires is filled in before a subscription
    gets there; on the way back nothing is taken out.
    """
    family = cls.__family__
    active, terminated = (
        family.class_for(status) for status in (SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.TERMINATED)
    )
    for one, other in ((cls, family.base), (active, terminated)):
        if one is other or cls not in (one, other) or one is family.base:
            continue  # as long as the base serves what is active, a class for that may be made yet
        for name, field in one.__shape__.blocks.items():
            wrong = _compare_fields(field, other.__shape__.blocks[name])
            if wrong is not None:
                back = ", ".join(status.value for status in family.lifecycles_of(other))
                raise DefinitionError(
                    f"{one.__name__}.{name} {wrong[0]}, but {other.__name__}.{name} {wrong[1]}, so that a subscription could not"
                    f" become {back} with it: let {other.__name__} take whatever {one.__name__} takes"
                )


def _compare_fields(field: BlockField, other: BlockField) -> tuple[str, str] | None:
    """Return what a field takes and another one does not, each as a phrase; ``None`` if the other takes everything."""
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


def _check_lifecycles(cls: type[DomainModel], lifecycles: Iterable[SubscriptionLifecycle]) -> None:
    """Check that the blocks in a class's fields, as each lifecycle has them, are of the classes that it names."""
    for field in cls.__shape__.blocks.values():
        named = {one.__family__.name: one for one in field.classes}
        if len(named) < len(field.classes):
            names = [one.__family__.name for one in field.classes]
            twice = min(name for name in names if names.count(name) > 1)
            raise DefinitionError(f"{cls.__name__}.{field.name} names two classes of the product block {twice!r}")
        for status in lifecycles:
            for name, one in named.items():
                expected = one.__family__.class_for(status)
                if not issubclass(expected, one):
                    raise DefinitionError(
                        f"{cls.__name__}.{field.name} names {one.__name__}, but in the lifecycle {status.name}, which"
                        f" {cls.__name__} serves, a block {name!r} is {expected.__name__}: name {expected.__name__}, or let a"
                        f" class with lifecycle=[SubscriptionLifecycle.{status.name}] derive from {one.__name__}"
                    )
