"""How error texts name models, and what pydantic says of them."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from orchestrator.domain.fields import is_block
from orchestrator.domain.model import DomainModel
from orchestrator.errors import told_by


def problems(error: ValidationError, path: str = "", told: Collection[str] = ()) -> list[str]:
    """What pydantic says, one line per field, each with its path; not about fields of which something was told already."""
    return [
        f"{'.'.join([*filter(None, [path]), *map(str, one['loc'])]) or 'all of it'}: {told_by(one)}"
        for one in error.errors(include_url=False, include_context=False, include_input=False)
        if not (one["loc"] and one["loc"][0] in told)
    ]


def describe(model: DomainModel) -> str:
    """A model, as error texts name it."""
    key = getattr(model, type(model).reference_key)
    return f"the block {type(model).__family__.name} {key}" if is_block(type(model)) else f"the subscription {key}"


def joined(path: str, name: object) -> str:
    """The path of something below."""
    return f"{path}.{name}" if path else str(name)
