"""Read the fixed inputs of a subscription, which its product holds as texts."""

from __future__ import annotations

import enum
import typing
from collections.abc import Collection
from dataclasses import is_dataclass
from types import NoneType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from orchestrator.db.subscriptions import StoredProduct
from orchestrator.domain.annotations import format_annotation, iter_members
from orchestrator.domain.model import DomainModel
from orchestrator.errors import DefinitionError, ModelError


def read_fixed_inputs(cls: type[DomainModel], product: StoredProduct) -> dict[str, object]:
    """Return the values that a product gives to the fixed inputs of its model.

    Raises:
        ModelError: the product lacks one.
    """
    values: dict[str, object] = {}
    for name in cls.__shape__.values:
        field = cls.model_fields[name]
        if name in product.fixed_inputs:
            text = product.fixed_inputs[name]
            values[name] = list_choices(field).get(text, text)
        elif field.is_required():
            raise ModelError(
                f"the product {product.product['name']!r} has no fixed input {name!r}, which {cls.__name__} requires: set"
                " it in a migration"
            )
    return values


def list_choices(field: FieldInfo) -> dict[str, object]:
    """Return the possible values of a fixed input, if its annotation lists them: text in the database -> value."""
    found: dict[str, object] = {}
    for member in iter_members(field.annotation):
        if typing.get_origin(member) is Literal:
            found |= {format_value(value): value for value in typing.get_args(member) if value is not None}
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            found |= {format_value(value): value for value in member}
        elif member is not NoneType:
            return {}
    return found


def format_value(value: object) -> str:
    """Return the value of a fixed input as the database has it."""
    return str(to_jsonable_python(value.value if isinstance(value, enum.Enum) else value))


def format_default(field: FieldInfo) -> str | None:
    """Return the default of a fixed input as text; ``None`` if it has no default, or that is ``None``."""
    default = field.get_default()
    return None if default is None or default is PydanticUndefined else format_value(default)


def explain_mismatch(field: FieldInfo, text: str) -> str | None:
    """Return pydantic's reason why a text cannot be the value of a fixed input; ``None`` if it can."""
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    adapter: TypeAdapter[object] = TypeAdapter(annotation)
    try:
        adapter.validate_python(list_choices(field).get(text, text), strict=False)
    except ValidationError as error:
        return "; ".join(one["msg"] for one in error.errors(include_url=False))
    return None


def check_fixed_inputs(cls: type[DomainModel]) -> None:
    """Check that what a product holds as text can be the value of each fixed input.

    Raises:
        DefinitionError: it cannot; the text names class and field.
    """
    for name in cls.__shape__.values:
        field = cls.model_fields[name]
        place = f"{cls.__name__}.{name}"
        for member in iter_members(field.annotation):
            kind = typing.get_origin(member) or member
            if kind is Literal or not isinstance(kind, type) or issubclass(kind, str | bytes | enum.Enum):
                continue
            if issubclass(kind, Collection | BaseModel) or is_dataclass(kind):
                raise DefinitionError(
                    f"{place} is a fixed input, which the product holds as a text, and so cannot be"
                    f" {format_annotation(member)}: make it a plain value, or a field of a product block"
                )
        text = format_default(field)
        if text is not None and (wrong := explain_mismatch(field, text)):
            raise DefinitionError(
                f"{place} is a fixed input, which the product holds as a text, and its default {text!r} could not be read from"
                f" that: {wrong}"
            )
