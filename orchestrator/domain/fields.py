"""What the fields of a model are: values of its own, or blocks. Read from the annotations when the class is made."""

from __future__ import annotations

import typing
from types import NoneType
from typing import cast

from pydantic import BaseModel, Json, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from orchestrator.domain.annotations import bare, may_be_none, members, parts, text_of
from orchestrator.domain.model import BLOCK_KEY, Block, BlockField, Shape
from orchestrator.errors import DefinitionError
from orchestrator.types import Stored


def shape_of(cls: type[BaseModel], own: frozenset[str]) -> Shape:
    """Read the fields of a class, those of the engine's own base classes aside.

    Raises:
        DefinitionError: an annotation cannot be stored; the text names class and field.
    """
    values, nullable, blocks = [], set(), {}
    for name, field in cls.model_fields.items():
        if name in own:
            continue
        block = _block_field(cls, name, field)
        if block is not None:
            blocks[name] = block
            continue
        _require_storable(f"{cls.__name__}.{name}", field)
        values.append(name)
        if may_be_none(field.annotation):
            nullable.add(name)
    return Shape(tuple(values), frozenset(nullable), blocks)


def is_block(annotation: object) -> bool:
    """Whether an annotation is the class of a product block."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, Stored)
        and getattr(annotation, "reference_key", None) == BLOCK_KEY
    )


def _require_storable(place: str, field: FieldInfo) -> None:
    named = [("", field), *(("", one) for one in field.metadata), *parts(field.annotation)]
    for inside, part in named:
        where = f"{place}: {inside}" if inside else place
        if isinstance(part, FieldInfo) and (part.exclude or getattr(part, "exclude_if", None)):
            raise DefinitionError(f"{where} is excluded from what pydantic writes, so it cannot be stored")
        if isinstance(part, type) and issubclass(part, (SecretStr, SecretBytes)):
            raise DefinitionError(
                f"{where} is a secret, of which pydantic writes asterisks only: keep it in a place made for"
                " secrets, and here what it is found by"
            )
        if not inside and (part is Json or type(part) is Json):
            raise DefinitionError(
                f"{where} is Json, which takes a text and is something else afterwards, so that it cannot be checked"
                " again: give it the type that is meant"
            )


def _block_field(cls: type[BaseModel], name: str, field: FieldInfo) -> BlockField | None:
    annotation, metadata = bare(field.annotation)
    metadata = [*field.metadata, *metadata]
    place = f"{cls.__name__}.{name}"
    mentioned = [
        (inside, part) for inside, part in parts(annotation) if isinstance(part, type) and issubclass(part, Stored)
    ]
    if not mentioned:
        return None
    for inside, part in mentioned:
        if inside:
            raise DefinitionError(
                f"{place} is a value, but {inside} in it names {part.__name__}, of which a copy would be stored: put the"
                " product block into a field of its own"
            )
        if not is_block(part):
            raise DefinitionError(
                f"{place} names {part.__name__}, a whole subscription: name the product block of it that is referred to"
            )
    many = typing.get_origin(annotation) is list
    if many:
        (annotation,) = typing.get_args(annotation)
    kinds = list(members(annotation))
    optional = not many and NoneType in kinds
    if many and NoneType in kinds:
        raise DefinitionError(f"{place} is a list that may hold None: leave what is missing out of the list")
    classes = [kind for kind in kinds if kind is not NoneType]
    mixed = [kind for kind in classes if not is_block(kind)]
    if mixed:
        raise DefinitionError(
            f"{place} mixes product blocks with {text_of(mixed[0])}: a field holds a block, a union of blocks, either with"
            " '| None', or a list of blocks, and nothing else"
        )
    least = [number for part in metadata if (number := getattr(part, "min_length", None)) is not None]
    most = [number for part in metadata if (number := getattr(part, "max_length", None)) is not None]
    found = cast("tuple[type[Block], ...]", tuple(classes))
    return BlockField(name, found, many, optional, max(least, default=0), min(most, default=None))
