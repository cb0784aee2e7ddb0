"""What annotations are made of, down to the fields of the models and dataclasses that they name."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestrator.types import Stored


def bare(annotation: object) -> tuple[object, list[object]]:
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


def members(annotation: object) -> Iterator[object]:
    """The members of a union, however it is written; of anything else the one that it is."""
    annotation, _ = bare(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def may_be_none(annotation: object) -> bool:
    """Whether ``None`` fits an annotation."""
    for member in members(annotation):
        if member in (NoneType, None, Any, object):
            return True
        if typing.get_origin(member) is Literal and None in typing.get_args(member):
            return True
    return False


def has_union(annotation: object, above: tuple[object, ...] = ()) -> bool:
    """Whether an annotation leaves the type open somewhere; that something may be ``None`` does not count."""
    annotation, _ = bare(annotation)
    if len([member for member in members(annotation) if member is not NoneType]) > 1:
        return True
    if any(annotation is one for one in above):
        return False
    return any(has_union(one, (*above, annotation)) for one in typing.get_args(annotation))


def parts(annotation: object, place: str = "", above: tuple[object, ...] = ()) -> Iterator[tuple[str, object]]:
    """Everything that an annotation names: types, what ``Annotated`` and fields say, and the same of the models below.

    Models with tables of their own are named, but not looked into.

    Returns:
        Each with its place: the field of the model or dataclass, such as ``Endpoint.address``; empty in the annotation itself.
    """
    annotation, metadata = bare(annotation)
    yield from ((place, one) for one in metadata)
    if any(annotation is one for one in above):
        return  # a type of its own kind
    above = (*above, annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal or not arguments:
        yield place, annotation
    else:
        for argument in arguments:
            yield from parts(argument, place, above)
    named = annotation if isinstance(annotation, type) and origin is None else origin
    if isinstance(named, type) and not issubclass(named, Stored):
        for name, (inner, field) in _fields(named).items():
            inside = f"{named.__name__}.{name}"
            if field is not None:
                yield inside, field
            yield from parts(inner, inside, above)


def _fields(cls: type) -> Mapping[str, tuple[object, FieldInfo | None]]:
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


def text_of(annotation: object) -> str:
    """An annotation, as error texts name it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
