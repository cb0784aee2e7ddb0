"""Whether a model can be saved as it is: it fits its class, and what is stored of it comes back as the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.db.subscriptions import StoredBlock
from orchestrator.domain.annotations import has_union
from orchestrator.domain.model import Block, DomainModel
from orchestrator.domain.texts import describe, joined, problems
from orchestrator.domain.values import PLAIN, read, with_none
from orchestrator.errors import ModelError

_LONGEST = 80
"""Characters of a value in an error text."""


def check(model: DomainModel) -> None:
    """Validate a model as it is now: lists and other values may have been changed in place, where nobody noticed.

    Raises:
        ModelError: a value does not fit its field.
    """
    cls = type(model)
    given = {name: getattr(model, name) for name in cls.model_fields}
    try:
        checked = cls.model_validate(given, by_alias=False, by_name=True)
    except ValidationError as error:
        wrong = "; ".join(problems(error))
        raise ModelError(f"{describe(model)} cannot be saved as {cls.__name__}: {wrong}") from error
    for name in cls.__shape__.values:
        model.__dict__[name] = checked.__dict__[name]


def check_comes_back(block: Block, row: StoredBlock) -> None:
    """Make sure that what is to be stored of a block is the same when it is loaded, rather than find out when it is lost.

    Raises:
        ModelError: it is not: a value cannot be loaded, or would be another one.
    """
    cls = type(block)
    given = {name: getattr(block, name) for name in cls.model_fields if name not in cls.__shape__.values}
    try:
        back = read(cls, {**given, **with_none(cls, row.values)})
    except ValidationError as error:
        wrong = "; ".join(problems(error))
        raise ModelError(
            f"{describe(block)} cannot be saved: what JSON makes of it does not fit {cls.__name__} any more: {wrong}"
        ) from error
    lost = [loss for name in cls.__shape__.values if (loss := _loss(block.__dict__[name], back.__dict__[name], name))]
    if lost:
        raise ModelError(
            f"{describe(block)} cannot be saved: when it is loaded again, "
            + "; ".join(f"{cls.__name__}.{one.path} would be {one}: {_advice(cls, one)}" for one in lost)
        )


@dataclass(frozen=True, slots=True)
class _Loss:
    """A value that would not come back as it is."""

    path: str
    now: object
    back: object

    def __str__(self) -> str:
        now, back = _short(self.now), _short(self.back)
        if now == back:
            return f"another {back} than it is now"
        return f"{back}, not {now}"


def _loss(now: object, back: object, path: str) -> _Loss | None:
    """Where a value that was read differs from the one that was written, if anywhere: in value, or in type."""
    if type(now) is type(back) and type(now) in PLAIN:
        return None if now == back else _Loss(path, now, back)
    if not _is_same_kind(now, back):
        return _Loss(path, now, back)
    below = _pairs(now, back)
    if below is None:
        return None if _is_equal(now, back) else _Loss(path, now, back)
    if isinstance(now, list | tuple | deque | AbstractSet | Mapping) and len(now) != len(back):  # type: ignore[arg-type]
        return _Loss(path, now, back)
    for name, one, other in below:
        found = _Loss(path, now, back) if other is _MISSING else _loss(one, other, joined(path, name))
        if found is not None:
            return found
    return None


_MISSING = object()


def _is_same_kind(now: object, back: object) -> bool:
    if type(now) is type(back):
        return True
    if isinstance(now, bool | Enum | BaseModel) or is_dataclass(now):
        return False
    # What drivers and libraries give may be of a class derived from the plain one: a UUID of asyncpg's is a UUID.
    return isinstance(now, type(back))


def _pairs(now: Any, back: Any) -> Iterator[tuple[object, object, object]] | None:
    """The parts of two values of one kind, each with its name; ``None`` of what has no parts."""
    if isinstance(now, BaseModel):
        ours, theirs = _fields(now), _fields(back)
        return ((name, ours[name], theirs.get(name, _MISSING)) for name in ours)
    if is_dataclass(now):
        return ((one.name, getattr(now, one.name, None), getattr(back, one.name, None)) for one in fields(now))
    if isinstance(now, list | tuple | deque):
        return ((number, *pair) for number, pair in enumerate(zip(now, back, strict=False)))
    if isinstance(now, Mapping):
        keys = {key: key for key in back}
        return (
            (key, value, back[key] if key in keys and _is_same_kind(key, keys[key]) else _MISSING)
            for key, value in now.items()
        )
    if isinstance(now, AbstractSet):
        found = {one: one for one in back}
        return ((one, one, found.get(one, _MISSING)) for one in now)
    return None


def _is_equal(now: object, back: object) -> bool:
    if getattr(type(now), "__eq__", None) is object.__eq__ and not isinstance(now, Enum):
        # Its class does not say what is equal; then what it holds does.
        return getattr(now, "__dict__", None) == getattr(back, "__dict__", None)
    # What is not equal to itself is equal to its like.
    return now == back or (now != now and back != back)  # noqa: PLR0124


def _fields(model: BaseModel) -> dict[str, object]:
    own = {name: model.__dict__.get(name) for name in type(model).model_fields}
    return {**own, **(model.__pydantic_extra__ or {})}


def _advice(cls: type[DomainModel], loss: _Loss) -> str:
    field = cls.model_fields[loss.path.partition(".")[0]]
    now, back = type(loss.now), type(loss.back)
    if now is not back and isinstance(loss.back, BaseModel) and issubclass(now, back):
        return (
            f"the annotation names {back.__name__}, so only that is stored: name {now.__name__}, in a union with a discriminator"
            " if there may be several"
        )
    if now is not back and has_union(field.annotation):
        return (
            "JSON does not tell which member of the union it is: put the narrower type first and add"
            " Field(union_mode='left_to_right'), use a discriminator, or give each type a field of its own"
        )
    if now is not back:
        return f"the annotation does not tell that it is {now.__name__}: name that type"
    return "let its serializer write all of it, and its validator take what that writes"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
