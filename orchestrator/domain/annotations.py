"""Read annotations: everything that they name, and the fields of domain models that they make."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, Json, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from orchestrator.domain.model import Block, BlockField, Shape, is_block
from orchestrator.errors import DefinitionError
from orchestrator.types import Stored


def unwrap(annotation: object) -> tuple[object, list[object]]:
    """Return an annotation without ``Annotated`` and aliases, and the metadata of ``Annotated``."""
    metadata: list[object] = []
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *more = typing.get_args(annotation)
            metadata += more
        elif (meant := getattr(annotation, "__value__", None)) is not None:
            annotation = meant
        else:
            return annotation, metadata


def iter_members(annotation: object) -> Iterator[object]:
    """Yield the members of a union, however it is written; of anything else the annotation itself."""
    annotation, _ = unwrap(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from iter_members(member)
    else:
        yield annotation


def may_be_none(annotation: object) -> bool:
    """Return whether ``None`` fits an annotation."""
    return any(
        member in (NoneType, None, Any, object)
        or (typing.get_origin(member) is Literal and None in typing.get_args(member))
        for member in iter_members(annotation)
    )


def has_union(annotation: object, above: tuple[object, ...] = ()) -> bool:
    """Return whether an annotation leaves the type open somewhere; ``None`` in a union does not count."""
    annotation, _ = unwrap(annotation)
    if len([member for member in iter_members(annotation) if member is not NoneType]) > 1:
        return True
    if any(annotation is one for one in above):
        return False
    return any(has_union(one, (*above, annotation)) for one in typing.get_args(annotation))


def walk(annotation: object, place: str = "", above: tuple[object, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield everything that an annotation names: types, the metadata of ``Annotated`` and of fields, and those of models below.

    Models with tables of their own are named, but not looked into.

    Returns:
        Each with its place: the field of the model or dataclass, such as ``Endpoint.address``; empty in the annotation itself.
    """
    annotation, metadata = unwrap(annotation)
    yield from ((place, one) for one in metadata)
    if any(annotation is one for one in above):
        return  # a recursive type
    above = (*above, annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal or not arguments:
        yield place, annotation
    else:
        for argument in arguments:
            yield from walk(argument, place, above)
    named = annotation if isinstance(annotation, type) and origin is None else origin
    if isinstance(named, type) and not issubclass(named, Stored):
        for name, (inner, field) in _fields_of(named).items():
            inside = f"{named.__name__}.{name}"
            if field is not None:
                yield inside, field
            yield from walk(inner, inside, above)


def _fields_of(cls: type) -> Mapping[str, tuple[object, FieldInfo | None]]:
    known = getattr(cls, "__pydantic_fields__", None)
    if issubclass(cls, BaseModel) or known is not None:
        return {name: (field.annotation, field) for name, field in (known or {}).items()}
    if not (is_dataclass(cls) or typing.is_typeddict(cls) or hasattr(cls, "_fields")):
        return {}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError:
        return {}  # defined where only pydantic finds it
    return {name: (hint, None) for name, hint in hints.items()}


def format_annotation(annotation: object) -> str:
    """Name an annotation in an error text."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def read_shape(cls: type[BaseModel], reserved: frozenset[str]) -> Shape:
    """Read the fields of a class, except those of the engine's own base class.

    Raises:
        DefinitionError: a field cannot be stored; the text names class and field.
    """
    values, nullable, blocks = [], set(), {}
    for name, field in cls.model_fields.items():
        if name in reserved:
            continue
        place = f"{cls.__name__}.{name}"
        block = _read_block_field(place, name, field)
        if block is not None:
            blocks[name] = block
            continue
        _check_storable(place, field)
        values.append(name)
        if may_be_none(field.annotation):
            nullable.add(name)
    return Shape(tuple(values), frozenset(nullable), blocks)


def _check_storable(place: str, field: FieldInfo) -> None:
    for inside, part in [("", field), *(("", one) for one in field.metadata), *walk(field.annotation)]:
        where = f"{place}: {inside}" if inside else place
        if isinstance(part, FieldInfo) and (part.exclude or getattr(part, "exclude_if", None)):
            raise DefinitionError(f"{where} is excluded from what pydantic writes, so it cannot be stored")
        if isinstance(part, type) and issubclass(part, (SecretStr, SecretBytes)):
            raise DefinitionError(
                f"{where} is a secret, which pydantic writes as asterisks: keep it in a secret store, and here the key to"
                " find it by"
            )
        if not inside and (part is Json or type(part) is Json):
            raise DefinitionError(
                f"{where} is Json, which is a text before validation and another type after it, so it cannot be validated"
                " again: annotate it with that type"
            )


def _read_block_field(place: str, name: str, field: FieldInfo) -> BlockField | None:
    annotation, metadata = unwrap(field.annotation)
    metadata = [*field.metadata, *metadata]
    stored = [
        (inside, part) for inside, part in walk(annotation) if isinstance(part, type) and issubclass(part, Stored)
    ]
    if not stored:
        return None
    for inside, part in stored:
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
    members = list(iter_members(annotation))
    classes = [member for member in members if member is not NoneType]
    may_be_missing = len(classes) < len(members)
    if many and may_be_missing:
        raise DefinitionError(f"{place} is a list that may hold None: leave what is missing out of the list")
    for member in classes:
        if not is_block(member):
            raise DefinitionError(
                f"{place} mixes product blocks with {format_annotation(member)}: a field holds a block, a union of blocks,"
                " either with '| None', or a list of blocks, and nothing else"
            )
        if not hasattr(member, "__family__"):
            raise DefinitionError(
                f"{place} names {format_annotation(member)}, which is abstract: name the product blocks that derive from it, as a"
                " union"
            )
    least = [number for part in metadata if (number := getattr(part, "min_length", None)) is not None]
    most = [number for part in metadata if (number := getattr(part, "max_length", None)) is not None]
    found = cast("tuple[type[Block], ...]", tuple(classes))
    return BlockField(name, found, many, may_be_missing, max(least, default=0), min(most, default=None))
