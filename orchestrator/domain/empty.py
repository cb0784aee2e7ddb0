"""New models: which blocks are there from the beginning, and whether a base class can begin at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pydantic import ValidationError

from orchestrator.domain.model import BlockField, DomainModel
from orchestrator.domain.texts import problems
from orchestrator.errors import DefinitionError, ModelError
from orchestrator.types import SubscriptionLifecycle

Model = TypeVar("Model", bound=DomainModel)


def filled(
    cls: type[Model],
    own: Mapping[str, object],
    subscription_id: UUID,
    values: Mapping[str, Any],
    status: SubscriptionLifecycle | None = None,
) -> Model:
    """A new model with the blocks that cannot be left out.

    Args:
        own: the values of the engine's own fields.
        subscription_id: of the subscription that new blocks belong to.
        values: of the author's fields; they go before what would be made.
        status: of the subscription; default one that the class serves.

    Raises:
        ModelError: a value is missing or does not fit.
    """
    status = status or next(iter(cls.__family__.served_by(cls)), SubscriptionLifecycle.INITIAL)
    given: dict[str, object] = {**own, **values}
    for name in cls.__shape__.nullable - given.keys():
        if cls.model_fields[name].is_required():
            given[name] = None
    given |= empty_blocks(cls, subscription_id, status, given.keys())
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        raise ModelError(f"a new {cls.__name__} cannot be made: {'; '.join(problems(error))}") from error


def empty_blocks(
    cls: type[DomainModel], subscription_id: UUID, status: SubscriptionLifecycle, given: Collection[str]
) -> dict[str, object]:
    """New blocks, by field, for all fields of a model that need some and are not ``given``."""
    made: dict[str, object] = {}
    for name, field in cls.__shape__.blocks.items():
        if name not in given and cls.model_fields[name].is_required():
            made |= _blocks(field, subscription_id, status)
    return made


def _blocks(field: BlockField, subscription_id: UUID, status: SubscriptionLifecycle) -> dict[str, object]:
    if len(field.classes) > 1 and field.starts_with:
        return {}  # Which of the union it is, only the author knows.
    cls = field.classes[0].__family__.class_for(status)
    cls = cls if issubclass(cls, field.classes[0]) else field.classes[0]
    made = [
        filled(cls, {"owner_subscription_id": subscription_id}, subscription_id, {}, status)
        for _ in range(field.starts_with)
    ]
    return {field.name: made if field.many else next(iter(made), None)}


def check_can_start_empty(cls: type[DomainModel]) -> None:
    """Make sure that a new model of a base class can be made before anything is known of it.

    Raises:
        DefinitionError: a field must have a value from the beginning; the text says what to write instead.
    """
    for name in cls.__shape__.values:
        if cls.model_fields[name].is_required() and name not in cls.__shape__.nullable:
            raise DefinitionError(
                f"{cls.__name__}.{name} must have a value, but a new block has none: write '{name}: ... | None = None' in the"
                " base class, and leave out the None in the classes for later lifecycles"
            )
    check_blocks_can_start_empty(cls)


def check_blocks_can_start_empty(cls: type[DomainModel]) -> None:
    """Make sure that the blocks which a new model of a base class must have can be made.

    Raises:
        DefinitionError: they cannot; the text says what to write instead.
    """
    for name, field in cls.__shape__.blocks.items():
        if not field.starts_with or not cls.model_fields[name].is_required():
            continue
        if len(field.classes) > 1:
            remedy = "let the list be empty in the base class" if field.many else "add '| None' in the base class"
            raise DefinitionError(
                f"{cls.__name__}.{name} must hold a block of several kinds, and a new one is of neither: {remedy}"
            )
        if field.classes[0] is cls:
            raise DefinitionError(
                f"{cls.__name__}.{name} must hold a block of its own kind, which must hold one, without end: add '| None'"
            )
