"""The values of a block, written as JSON and read again.

All writing and all reading of them goes through here, in one mode: fields stand under their names, whatever aliases they have,
also in models within values; and strictness is for people who assign, because JSON has no UUIDs, sets or dates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from typing import TypeVar

from pydantic import BaseModel, RootModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from orchestrator.domain.model import Block, DomainModel
from orchestrator.domain.texts import describe
from orchestrator.engine.state import has_null_character
from orchestrator.errors import ModelError
from orchestrator.types import JSON

Model = TypeVar("Model", bound=DomainModel)

PLAIN = frozenset({str, int, float, bool, type(None)})
"""What JSON has itself, and nothing is in."""


def written(block: Block) -> dict[str, JSON]:
    """The values of a block as JSON; what is ``None`` and comes back as that by itself is left out.

    Raises:
        ModelError: JSON, or the database, cannot hold a value.
    """
    cls = type(block)
    shape, family = cls.__shape__, cls.__family__
    try:
        text = _text(block, *shape.values)
        values: dict[str, JSON] = from_json(text, allow_inf_nan=False)
    except PydanticSerializationError as error:
        raise ModelError(f"{describe(block)} holds something that JSON cannot hold: {error}") from error
    except ValueError as error:
        # NaN and infinity can be written, but not read again; the reader tells no more than a column of the text.
        names = ", ".join(name for name in shape.values if not _is_readable(_text(block, name)))
        raise ModelError(f"{describe(block)} holds something that JSON cannot hold, in {names}: {error}") from error
    if b"\\u0000" in text:
        refuse_null_characters(block, values)
    for name in shape.values:
        value = block.__dict__[name]
        if value is None:
            if values[name] is None and not family.stores_none(name):
                del values[name]
        elif type(value) not in PLAIN:
            values[name] = _ordered(value, values[name])
    return values


def _is_readable(text: bytes) -> bool:
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _text(block: Block, *names: str) -> bytes:
    return block.__pydantic_serializer__.to_json(
        block, include=set(names), by_alias=False, round_trip=True, warnings=False
    )


def read(cls: type[Model], values: Mapping[str, object]) -> Model:
    """A model of what rows hold, or of the values of another model.

    Raises:
        ValidationError: they do not fit.
    """
    return cls.model_validate(values, strict=False, by_alias=False, by_name=True)


def with_none(cls: type[DomainModel], stored: Mapping[str, object]) -> dict[str, object]:
    """Values as a class reads them: ``None`` where that is what its absence means, and only where the class knows it."""
    shape, fields = cls.__shape__, cls.model_fields
    found = dict.fromkeys(name for name in shape.nullable if name not in stored and fields[name].is_required())
    found |= {name: value for name, value in stored.items() if value is not None or name in shape.nullable}
    return found


def refuse_null_characters(model: DomainModel, values: Mapping[str, JSON]) -> None:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        ModelError: there is a null character somewhere.
    """
    wrong = [name for name, value in values.items() if has_null_character(value)]
    if wrong:
        raise ModelError(f"{wrong[0]} of {describe(model)} has a null character, which the database cannot hold")


def _ordered(value: object, written: JSON) -> JSON:
    """What was written of a value, with the entries of each set in it in one order.

    Sets have none, rows do: without one of our own each program would find another, and a difference where there is none.
    """
    if isinstance(value, RootModel):
        return _ordered(value.root, written)
    if isinstance(written, list):
        if isinstance(value, list | tuple | deque | AbstractSet) and len(value) == len(written):
            entries = written
            if not PLAIN.issuperset(map(type, value)):
                entries = [_ordered(one, text) for one, text in zip(value, written, strict=True)]
            return sorted(entries, key=to_json) if isinstance(value, AbstractSet) else entries
    elif isinstance(written, dict):
        if isinstance(value, Mapping):
            if len(value) == len(written):
                pairs = zip(value.values(), written.items(), strict=True)
                return {key: _ordered(one, text) for one, (key, text) in pairs}
        elif isinstance(value, BaseModel) or is_dataclass(value):
            return {key: _ordered(getattr(value, key, None), text) for key, text in written.items()}
    return written
