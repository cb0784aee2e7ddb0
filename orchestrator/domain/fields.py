"""What the fields of a model are: values of its own, or blocks. Read from the annotations when the class is made."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from orchestrator.errors import DefinitionError
from orchestrator.types import Stored

if TYPE_CHECKING:
    from orchestrator.domain.block import ProductBlockModel


BLOCK_KEY = "subscription_instance_id"
"""Where a reference to a block has its id; it tells the classes of blocks from those of subscriptions."""


@dataclass(frozen=True, slots=True)
class BlockField:
    """A field in which one block stands, or a list of them.

    Args:
        classes: what the annotation names: one class, or the members of a union.
        many: whether it is a list; ``minimum`` is how many blocks it must have.
        optional: whether ``None`` may stand there.
    """

    name: str
    classes: tuple[type[ProductBlockModel], ...]
    many: bool
    optional: bool
    minimum: int

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
        if field.exclude:
            raise DefinitionError(
                f"{cls.__name__}.{name} is excluded from what pydantic writes, so it cannot be stored"
            )
        if any(
            isinstance(part, type) and issubclass(part, SecretStr | SecretBytes) for part in _parts(field.annotation)
        ):
            raise DefinitionError(
                f"{cls.__name__}.{name} is a secret, of which pydantic writes asterisks only: keep it in a place made for"
                " secrets, and here what it is found by"
            )
        values.append(name)
        if any(member in (NoneType, None, Any, object) for member in _members(field.annotation)):
            nullable.add(name)
    return Shape(tuple(values), frozenset(nullable), blocks)


def is_block(annotation: object) -> bool:
    """Whether an annotation is the class of a product block."""
    return (
        isinstance(annotation, type)
        and issubclass(annotation, Stored)
        and getattr(annotation, "reference_key", None) == BLOCK_KEY
    )


def _block_field(cls: type[BaseModel], name: str, field: FieldInfo) -> BlockField | None:
    annotation, metadata = _bare(field.annotation)
    metadata = [*field.metadata, *metadata]
    place = f"{cls.__name__}.{name}"
    mentioned = [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Stored)]
    if not mentioned:
        return None
    wrong = [part for part in mentioned if not is_block(part)]
    if wrong:
        raise DefinitionError(
            f"{place} names {wrong[0].__name__}, a whole subscription: name the product block of it that is referred to"
        )
    many = typing.get_origin(annotation) is list
    if many:
        (annotation,) = typing.get_args(annotation)
    members = list(_members(annotation))
    optional = not many and NoneType in members
    classes = [member for member in members if member is not NoneType]
    mixed = [member for member in classes if not is_block(member)]
    if mixed:
        raise DefinitionError(
            f"{place} mixes product blocks with {_text(mixed[0])}: a field holds a block, a union of blocks, either with"
            " '| None', or a list of blocks, and nothing else"
        )
    lengths = [least for part in metadata if (least := getattr(part, "min_length", None)) is not None]
    found = cast("tuple[type[ProductBlockModel], ...]", tuple(classes))
    return BlockField(name, found, many, optional, max(lengths, default=0))


def _bare(annotation: object) -> tuple[object, list[object]]:
    """An annotation without ``Annotated`` and without aliases, and what ``Annotated`` said."""
    metadata: list[object] = []
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *more = typing.get_args(annotation)
            metadata += more
        elif (meant := getattr(annotation, "__value__", None)) is not None:
            annotation = meant
        else:
            return annotation, metadata


def _members(annotation: object) -> Iterator[object]:
    annotation, _ = _bare(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _parts(annotation: object) -> Iterator[object]:
    annotation, _ = _bare(annotation)
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _parts(argument)


def _text(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
