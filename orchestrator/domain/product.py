"""The product that a subscription is of, and what it gives to each of its subscriptions."""

from __future__ import annotations

import enum
import typing
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from orchestrator.db.subscriptions import StoredProduct
from orchestrator.domain.family import DomainModel
from orchestrator.errors import ModelError


class ProductModel(BaseModel):
    """The product that a subscription is of."""

    model_config = ConfigDict(frozen=True)

    product_id: UUID
    name: str
    description: str
    product_type: str
    tag: str
    status: str


def fixed_inputs(cls: type[DomainModel], product: StoredProduct) -> dict[str, object]:
    """The values that a product gives to the fixed inputs of its model.

    Raises:
        ModelError: the product lacks one.
    """
    values: dict[str, object] = {}
    for name in cls.__shape__.values:
        field = cls.model_fields[name]
        if name in product.fixed_inputs:
            text = product.fixed_inputs[name]
            values[name] = choices(field).get(text, text)
        elif field.is_required():
            raise ModelError(
                f"the product {product.product['name']!r} has no fixed input {name!r}, which {cls.__name__} asks for: a"
                " migration must set it"
            )
    return values


def choices(field: FieldInfo) -> dict[str, object]:
    """What a fixed input can be, if its annotation lists that: the text in the database -> the value."""
    annotation = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return {str(value): value for value in typing.get_args(annotation)}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {str(member.value): member for member in annotation}
    return {}
