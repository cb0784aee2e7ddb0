"""Find the values in subscriptions that the code's classes cannot load: which, how many, and the fixing helper. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from pydantic import ValidationError

from orchestrator.db.registration.usage import StoredValue
from orchestrator.domain.model import DomainModel
from orchestrator.domain.schema import ProductDefinition
from orchestrator.engine.state import read_value
from orchestrator.services.model_drift import Finding, write_call
from orchestrator.text import format_problem
from orchestrator.types import JSON

_SHOWN = 3
"""Different values of one resource type that are reported with a call each."""

_LONGEST = 80
"""Characters of a value in a report."""


@dataclass(slots=True)
class _Unfit:
    """A value that cannot be loaded, in so many blocks."""

    written: str
    reason: str
    count: int


class UnfitValues:
    """Collects the values that do not fit, one row at a time: there may be as many different ones as blocks.

    Args:
        definitions: of all products of the code.
        dropped: pairs of block and resource type whose values are about to go.
    """

    def __init__(
        self, definitions: Iterable[ProductDefinition], dropped: Collection[tuple[str, str]] = frozenset()
    ) -> None:
        self._blocks: dict[str, type[DomainModel]] = {
            name: block.base for one in definitions for name, block in one.blocks.items()
        }
        self._dropped = dropped
        self._found: dict[tuple[str, str, str], dict[str, _Unfit]] = defaultdict(dict)

    def add(self, value: StoredValue) -> None:
        """Check a value of a block in subscriptions of one status, as the class for that status would load it."""
        base = self._blocks.get(value.block)
        if base is None or value.name not in base.__shape__.values or (value.block, value.name) in self._dropped:
            return
        cls = base.__family__.class_for(value.status)
        reason = _find_misfit(cls, value.name, value.written)
        if reason is not None:
            known = self._found[value.block, value.name, cls.__name__]
            known.setdefault(value.written, _Unfit(value.written, reason, 0)).count += value.count

    def list_findings(self) -> list[Finding]:
        """Return what does not fit, the most frequent values of each resource type first."""
        return [one for key in sorted(self._found) for one in _describe(*key, list(self._found[key].values()))]


def _describe(block: str, name: str, cls_name: str, unfit: list[_Unfit]) -> Iterator[Finding]:
    where = f"the resource type {name} of {block}"
    unfit.sort(key=lambda one: (-one.count, one.written))
    shown = unfit if len(unfit) <= _SHOWN + 1 else unfit[:_SHOWN]
    for one in shown:
        old = _write_value(one.written)
        calls = () if old is None else (write_call("replace_value", repr(block), repr(name), old, "…"),)
        otherwise = "" if calls else write_call("fill_values", repr(block), f"{{{name!r}: …}}", "overwrite=True")
        yield Finding(
            where, f"{cls_name} cannot load {_shorten(one.written)}: {one.reason}", one.count, calls, otherwise
        )
    rest = unfit[len(shown) :]
    if rest:
        yield Finding(
            where,
            f"{cls_name} cannot load {len(rest)} other values, such as {_shorten(rest[0].written)}",
            sum(one.count for one in rest),
            otherwise="a task that corrects them while the code still loads them",
        )


def _find_misfit(cls: type[DomainModel], name: str, written: str) -> str | None:
    """Return why a class cannot load a value; ``None`` when it can, as far as the value alone says."""
    try:
        value = read_value(written)
    except ValueError as error:
        return str(error)
    empty = _make_empty(cls)
    # A validator that asks for the other values fails, instead of deciding by those of another block.
    empty.__dict__.clear()
    try:
        cls.__pydantic_validator__.validate_assignment(empty, name, value, strict=False, by_alias=False, by_name=True)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            if problem["loc"][:1] == (name,) and problem["type"] != "frozen_field":
                path = ".".join(map(str, problem["loc"][1:]))
                return f"{path}: {format_problem(problem)}" if path else format_problem(problem)
    except Exception:
        return None  # such a validator, or one of the whole model
    return None


@cache
def _make_empty(cls: type[DomainModel]) -> DomainModel:
    """Return a model to which values are assigned, one after the other; making one for each would take a hundred times longer."""
    return cls.model_construct()


def _write_value(written: str) -> str | None:
    """Return a value as Python writes it; ``None`` when it cannot be read, or is too long for a line of code."""
    try:
        value: JSON = read_value(written)
    except ValueError:
        return None
    text = repr(value)
    return text if len(text) <= _LONGEST else None


def _shorten(written: str) -> str:
    return written if len(written) <= _LONGEST else f"{written[:_LONGEST]}…"
