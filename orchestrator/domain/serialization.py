"""Write the values of a block as JSON, read them again, and check that they come back as they are.

All writing and all reading goes through here, in one mode: fields are written under their names, whatever aliases they have,
also in models within values. Reading is lenient, because JSON has no UUIDs, sets or dates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import to_json

from orchestrator.db.subscriptions import StoredBlock
from orchestrator.domain.annotations import has_union
from orchestrator.domain.model import Block, DomainModel, describe
from orchestrator.engine.state import read_back
from orchestrator.errors import ModelError
from orchestrator.text import format_problem, sanitise
from orchestrator.types import JSON

Model = TypeVar("Model", bound=DomainModel)
T = TypeVar("T")

PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types that JSON has itself, and that hold no other values."""

_LONGEST = 80
"""Characters of a value in an error text."""

_MISSING = object()


def list_problems(error: ValidationError, path: str = "", known: Collection[str] = ()) -> list[str]:
    """Format pydantic's errors, one text per field, each with its path; fields in ``known`` are left out."""
    return [
        f"{'.'.join([*filter(None, [path]), *map(str, one['loc'])]) or 'the whole model'}: {format_problem(one)}"
        for one in error.errors(include_url=False, include_context=False, include_input=False)
        if not (one["loc"] and one["loc"][0] in known)
    ]


def join_path(path: str, name: object) -> str:
    """Return the path of something below ``path``."""
    return f"{path}.{name}" if path else str(name)


def serialize(block: Block) -> dict[str, JSON]:
    """Write the values of a block as JSON; a ``None`` that its absence restores is left out.

    Raises:
        ModelError: JSON, or the database, cannot hold a value.
    """
    names = type(block).__shape__.values
    try:
        values = read_back(_to_json(block, *names))
    except ValueError as error:
        # The text does not name the field.
        wrong = ", ".join(name for name in names if not _is_storable(block, name))
        raise ModelError(f"{describe(block)} holds something that cannot be stored, in {wrong}: {error}") from error
    assert isinstance(values, dict)  # noqa: S101 - the fields of a block by their names
    for name in names:
        value = block.__dict__[name]
        if value is None:
            if values[name] is None and not type(block).__family__.stores_none(name):
                del values[name]
        elif type(value) not in PLAIN:
            values[name] = _sort_sets(value, values[name])
    return values


def _to_json(block: Block, *names: str) -> bytes:
    return block.__pydantic_serializer__.to_json(
        block, include=set(names), by_alias=False, round_trip=True, warnings=False
    )


def _is_storable(block: Block, name: str) -> bool:
    try:
        read_back(_to_json(block, name))
    except ValueError:
        return False
    return True


def check_texts(model: DomainModel, texts: Mapping[str, str | None]) -> None:
    """Check that PostgreSQL can hold the texts of a row.

    Raises:
        ModelError: it cannot.
    """
    for name, text in texts.items():
        if text is not None and text != sanitise(text):
            raise ModelError(
                f"{name} of {describe(model)} has a null character or half of a surrogate pair, which the database cannot hold"
            )


def _sort_sets(value: object, written: JSON) -> JSON:
    """Return the JSON of a value with the entries of each set in it sorted.

    Sets have no order, rows do: otherwise each program would write another one, and find a difference where there is none.
    """
    if isinstance(value, RootModel):
        return _sort_sets(value.root, written)
    if isinstance(written, list):
        if isinstance(value, list | tuple | deque | AbstractSet) and len(value) == len(written):
            entries = written
            if not PLAIN.issuperset(map(type, value)):
                entries = [_sort_sets(one, text) for one, text in zip(value, written, strict=True)]
            return sorted(entries, key=to_json) if isinstance(value, AbstractSet) else entries
    elif isinstance(written, dict):
        if isinstance(value, Mapping):
            if len(value) == len(written):
                pairs = zip(value.values(), written.items(), strict=True)
                return {key: _sort_sets(one, text) for one, (key, text) in pairs}
        elif isinstance(value, BaseModel) or is_dataclass(value):
            return {key: _sort_sets(getattr(value, key, None), text) for key, text in written.items()}
    return written


def read(cls: type[Model], values: Mapping[str, object]) -> Model:
    """Make a model of what rows hold, or of the values of another model.

    Raises:
        ValidationError: they do not fit.
    """
    return cls.model_validate(values, strict=False, by_alias=False, by_name=True)


def restore_none(cls: type[DomainModel], stored: Mapping[str, object]) -> dict[str, object]:
    """Return values as a class reads them: ``None`` where that is what its absence means, and only where the class allows it."""
    nullable = cls.__shape__.nullable
    found = dict.fromkeys(name for name in nullable if name not in stored and cls.model_fields[name].is_required())
    return found | {name: value for name, value in stored.items() if value is not None or name in nullable}


def check_values(model: DomainModel) -> None:
    """Validate a model as it is now: lists and other values may have been changed in place, without validation.

    Raises:
        ModelError: a value does not fit its field.
    """
    cls = type(model)
    given = {name: getattr(model, name) for name in cls.model_fields}
    try:
        checked = cls.model_validate(given, by_alias=False, by_name=True)
    except ValidationError as error:
        wrong = "; ".join(list_problems(error))
        raise ModelError(f"{describe(model)} cannot be saved as {cls.__name__}: {wrong}") from error
    for name in cls.__shape__.values:
        model.__dict__[name] = checked.__dict__[name]


def check_round_trip(block: Block, row: StoredBlock) -> None:
    """Check that what is stored of a block is the same when it is loaded, before anything is lost.

    Raises:
        ModelError: a value cannot be loaded, or would be another one.
    """
    cls = type(block)
    given = {name: getattr(block, name) for name in cls.model_fields if name not in cls.__shape__.values}
    try:
        back = read(cls, {**given, **restore_none(cls, row.values)})
    except ValidationError as error:
        wrong = "; ".join(list_problems(error))
        raise ModelError(
            f"{describe(block)} cannot be saved: what is stored of it would not fit {cls.__name__}: {wrong}"
        ) from error
    pairs = ((name, block.__dict__[name], back.__dict__[name]) for name in cls.__shape__.values)
    losses = [loss for pair in pairs if (loss := _find_loss(*pair))]
    if losses:
        raise ModelError(
            f"{describe(block)} cannot be saved: when it is loaded again, "
            + "; ".join(f"{cls.__name__}.{one.path} would be {one}: {_advise(cls, one)}" for one in losses)
        )


class _Loss(NamedTuple):
    """A value that would not come back as it is."""

    path: str
    now: object
    back: object

    def __str__(self) -> str:
        now, back = _shorten(self.now), _shorten(self.back)
        return f"another {back} than it is now" if now == back else f"{back}, not {now}"


def _find_loss(path: str, now: object, back: object) -> _Loss | None:
    """Find where a value that was read differs from the one that was written: in value, or in type."""
    if type(now) is type(back) and type(now) in PLAIN:
        return None if now == back else _Loss(path, now, back)
    loss = _Loss(path, now, back)
    if not _is_same_kind(now, back):
        return loss
    parts = _pair_parts(now, back)
    if parts is None:
        return None if _is_equal(now, back) else loss
    if isinstance(now, list | tuple | deque | AbstractSet | Mapping) and len(now) != len(back):  # type: ignore[arg-type]
        return loss
    for name, one, other in parts:
        found = loss if other is _MISSING else _find_loss(join_path(path, name), one, other)
        if found is not None:
            return found
    return None


def _is_same_kind(now: object, back: object) -> bool:
    if type(now) is type(back):
        return True
    if isinstance(now, bool | Enum | BaseModel) or is_dataclass(now):
        return False
    # What drivers and libraries give may be of a class derived from the plain one: a UUID of asyncpg's is a UUID.
    return isinstance(now, type(back))


def _pair_parts(now: Any, back: Any) -> Iterator[tuple[object, object, object]] | None:
    """Pair the parts of two values of one kind, each with its name; ``None`` for values without parts."""
    if isinstance(now, BaseModel):
        ours, theirs = _fields_of(now), _fields_of(back)
        return ((name, ours[name], theirs.get(name, _MISSING)) for name in ours)
    if is_dataclass(now):
        return ((one.name, getattr(now, one.name, None), getattr(back, one.name, None)) for one in fields(now))
    if isinstance(now, list | tuple | deque):
        return ((number, *pair) for number, pair in enumerate(zip(now, back, strict=False)))
    if isinstance(now, Mapping):
        keys = {as_instant(key): key for key in back}
        found = ((key, value, keys.get(as_instant(key), _MISSING)) for key, value in now.items())
        return (
            (key, value, back[same] if same is not _MISSING and _is_same_kind(key, same) else _MISSING)
            for key, value, same in found
        )
    if isinstance(now, AbstractSet):
        members = {as_instant(one): one for one in back}
        return ((one, one, members.get(as_instant(one), _MISSING)) for one in now)
    return None


def _is_equal(now: object, back: object) -> bool:
    if getattr(type(now), "__eq__", None) is object.__eq__ and not isinstance(now, Enum):
        # Its class does not define equality; then its attributes do.
        return getattr(now, "__dict__", None) == getattr(back, "__dict__", None)
    now, back = as_instant(now), as_instant(back)
    # Two values like NaN, which are not equal to themselves, count as equal.
    return now == back or (now != now and back != back)  # noqa: PLR0124


def as_instant(value: T) -> T:
    """Return a time with a zone as the same instant in UTC, and anything else as it is.

    Python calls two times of different zones unequal, though they are the same instant, when one of them lies in an hour that
    its zone's clocks repeat or skip (PEP 495).
    """
    if isinstance(value, datetime) and value.utcoffset() is not None:
        with suppress(OverflowError):  # within a day of year 1 or 9999
            return value.astimezone(UTC)
    return value


def _fields_of(model: BaseModel) -> dict[str, object]:
    own = {name: model.__dict__.get(name) for name in type(model).model_fields}
    return {**own, **(model.__pydantic_extra__ or {})}


def _advise(cls: type[DomainModel], loss: _Loss) -> str:
    field = cls.model_fields[loss.path.partition(".")[0]]
    now, back = type(loss.now), type(loss.back)
    if now is back:
        return "let its serializer write all of it, and its validator take what that writes"
    if isinstance(loss.back, BaseModel) and issubclass(now, back):
        return (
            f"the annotation names {back.__name__}, so only that is stored: name {now.__name__}, in a union with a discriminator"
            " if there may be several"
        )
    if has_union(field.annotation):
        return (
            "JSON does not tell which member of the union it is: put the narrower type first and add"
            " Field(union_mode='left_to_right'), use a discriminator, or give each type a field of its own"
        )
    return f"the annotation does not say that it is {now.__name__}: name that type"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
