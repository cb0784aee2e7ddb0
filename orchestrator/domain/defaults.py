"""Make new models with the blocks that they need from the beginning, and check that base classes allow it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pydantic import ValidationError

from orchestrator.domain.model import Block, DomainModel
from orchestrator.domain.serialization import list_problems
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle

Model = TypeVar("Model", bound=DomainModel)


def build_new(
    cls: type[Model],
    own: Mapping[str, object],
    subscription_id: UUID,
    values: Mapping[str, Any],
    status: SubscriptionLifecycle | None = None,
) -> Model:
    """Make a new model with the blocks that cannot be left out.

    Args:
        own: the values of the engine's own fields.
        subscription_id: of the subscription that new blocks belong to.
        values: of the author's fields; they go before new blocks.
        status: of the subscription; default one that the class serves.

    Raises:
        ModelError: a value is missing or does not fit.
    """
    if not hasattr(cls, "__family__"):
        raise ModelError(
            f"{cls.__name__} is abstract, so there is none of it: make one of a class that derives from it"
        )
    status = status or next(iter(cls.__family__.lifecycles_of(cls)), SubscriptionLifecycle.INITIAL)
    given: dict[str, object] = {**own, **values}
    given |= dict.fromkeys(
        name for name in cls.__shape__.nullable - given.keys() if cls.model_fields[name].is_required()
    )
    given |= build_empty_blocks(cls, subscription_id, status, given.keys())
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        raise ModelError(f"a new {cls.__name__} cannot be made: {'; '.join(list_problems(error))}") from error


def build_empty_blocks(
    cls: type[DomainModel], subscription_id: UUID, status: SubscriptionLifecycle, given: Collection[str]
) -> dict[str, object]:
    """Make new blocks, by field, for all fields of a model that need some and are not ``given``."""
    made: dict[str, object] = {}
    for name, field in cls.__shape__.blocks.items():
        if name in given or not cls.model_fields[name].is_required():
            continue
        if len(field.classes) > 1 and field.starts_with:
            continue  # which member of the union it is, only the author knows
        named = field.classes[0]
        natural = named.__family__.class_for(status)
        blocks = [
            build_new(
                natural if issubclass(natural, named) else named,
                {"owner_subscription_id": subscription_id},
                subscription_id,
                {},
                status,
            )
            for _ in range(field.starts_with)
        ]
        made[name] = blocks if field.many else next(iter(blocks), None)
    return made


def check_defaults(cls: type[DomainModel]) -> None:
    """Check that a new model of a base class can be made before anything is known of it; fixed inputs come from the product.

    Raises:
        DefinitionError: a field must have a value from the beginning; the text says what to write instead.
    """
    for name in cls.__shape__.values if issubclass(cls, Block) else ():
        if cls.model_fields[name].is_required() and name not in cls.__shape__.nullable:
            raise DefinitionError(
                f"{cls.__name__}.{name} must have a value, but a new block has none: write '{name}: ... | None = None' in the"
                " base class, and leave out the None in the classes for later lifecycles"
            )
    for name, field in cls.__shape__.blocks.items():
        if not field.starts_with or not cls.model_fields[name].is_required():
            continue
        if len(field.classes) > 1:
            fix = "let the list be empty in the base class" if field.many else "add '| None' in the base class"
            raise DefinitionError(
                f"{cls.__name__}.{name} must hold a block, but names several kinds, of which the engine cannot choose one: {fix}"
            )
        if field.classes[0] is cls:
            raise DefinitionError(
                f"{cls.__name__}.{name} must hold a block of its own kind, which must hold another one, endlessly: add '| None'"
            )
