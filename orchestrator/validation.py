"""List what pydantic finds wrong with an input: the first problems, and how many there are.

pydantic keeps all problems, and makes a dict of each when it is asked for them. An input of a megabyte may have 90,000 fields
that a model does not know: so many dicts take more memory than everything else that the program does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError

from orchestrator.text import MAX_PROBLEMS, count_more, cut, format_place, format_problem

_SAID, _PLACE = 5, 100
"""Problems that stand in a sentence, and characters of the place of each."""

_FEW = MAX_PROBLEMS // 2
"""Unknown fields about which a model is asked, which leaves room for problems of fields that it knows."""


@dataclass(frozen=True, slots=True)
class Problems:
    """What is wrong with an input.

    Args:
        first: pydantic's errors, at most :data:`~orchestrator.text.MAX_PROBLEMS`.
        left_out: how many more there are.
    """

    first: Sequence[Mapping[str, Any]]
    left_out: int = 0

    def describe(self, root: str = "") -> str:
        """Return the problems as a sentence; ``root`` names the place of those that belong to no field."""
        said = [
            f"{cut('.'.join(format_place(one['loc'])), _PLACE) or root}: {format_problem(one)}"
            for one in self.first[:_SAID]
        ]
        left_out = self.left_out + len(self.first) - len(said)
        return "; ".join([*said, *([count_more(left_out)] if left_out else [])])


def find_problems(
    error: ValidationError, listed: Callable[[ValidationError], Sequence[Mapping[str, Any]]], left_out: int = 0
) -> Problems:
    """Return what is wrong with an input.

    Args:
        listed: makes the problems of an error that has few.
        left_out: unknown fields of the input that :func:`leave_out_unknown` has left out.
    """
    count = error.error_count()
    if count <= MAX_PROBLEMS:
        return Problems(listed(error), left_out)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return Problems(found[:MAX_PROBLEMS], left_out + count - MAX_PROBLEMS)


def leave_out_unknown(model: type[BaseModel], sent: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """Return an input with few of the fields that a model refuses because it does not know them, and how many are left out.

    There is a problem for each of them, and one is enough for the input to be refused.
    """
    if len(sent) <= _FEW or model.model_config.get("extra") != "forbid" or _is_rewritten(model):
        return sent, 0
    known = _names(model)
    few = frozenset(islice((name for name in sent if name not in known), _FEW))
    kept = {name: value for name, value in sent.items() if name in known or name in few}
    return kept, len(sent) - len(kept)


def _is_rewritten(model: type[BaseModel]) -> bool:
    """Return whether a model changes its input before it looks for unknown fields."""
    validators = model.__pydantic_decorators__.model_validators.values()
    return any(one.info.mode != "after" for one in validators)


def _names(model: type[BaseModel]) -> frozenset[str]:
    """Return every name under which a model may read a field."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias, field.alias]
        names |= {name, *(str(one.path[0]) if isinstance(one, AliasPath) else str(one) for one in choices if one)}
    return frozenset(names)
