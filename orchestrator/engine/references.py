"""References to what is stored outside the state: subscriptions and their blocks.

The state holds ids, never copies, because a copy is stale as soon as it is made. A step with a
parameter of a model's type gets the model loaded fresh; this module computes, without a database, which models that are.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any
from uuid import UUID

from orchestrator.errors import DefinitionError, MissingArgumentError
from orchestrator.types import State, Stored

SUBSCRIPTION_ID = "subscription_id"
"""The state key under which workflows on a subscription keep its id."""

OLD_SUBSCRIPTIONS = "__old_subscriptions__"
"""The state key with the locked subscriptions as they were before the lock, by id."""

SUBSCRIPTION_VERSION = "subscription_version"
"""The state key with the version of the subscription that the caller had read, if the first page named one."""


@dataclass(frozen=True, slots=True)
class StoredParameter:
    """A parameter that is filled with a model, or a list of models.

    Args:
        classes: what it may be an instance of.
        many: whether it is a list.
        required: whether the state must have it.
    """

    name: str
    classes: tuple[type[Stored], ...]
    many: bool
    required: bool
    default: Any = None

    def read(self, state: State, what: str) -> UUID | list[UUID] | None:
        """Return the id, or ids, that the state holds for it; ``None`` when it is optional and missing.

        A single subscription that is not in the state under the parameter's own name is looked for under
        ``subscription_id``, where the workflow types put it.

        Raises:
            MissingArgumentError: it is not there, or is not a reference.
        """
        key = self.classes[0].reference_key
        if self.name in state:
            value = state[self.name]
        elif not self.many and self.name == "subscription" and key == SUBSCRIPTION_ID and SUBSCRIPTION_ID in state:
            value = state[SUBSCRIPTION_ID]
        elif self.required:
            known = ", ".join(sorted(state)) or "nothing"
            raise MissingArgumentError(
                f"{what} asks for {self.name!r} ({self._type()}), which the state does not have. It has: {known}"
            )
        else:
            return None
        if value is None and not self.required:
            return None
        if self.many:
            if not isinstance(value, list):
                raise MissingArgumentError(
                    f"{what} asks for {self.name!r} as a list, but the state holds {value!r:.100}"
                )
            return [self._identity(one, key, what) for one in value]
        return self._identity(value, key, what)

    def _identity(self, value: object, key: str, what: str) -> UUID:
        found = value.get(key) if isinstance(value, Mapping) else value
        try:
            return found if isinstance(found, UUID) else UUID(str(found))
        except ValueError:
            raise MissingArgumentError(
                f"{what} asks for {self.name!r} ({self._type()}), but the state holds {value!r:.100}: neither an id nor"
                f" an object with {key!r}"
            ) from None

    def _type(self) -> str:
        return " | ".join(one.__name__ for one in self.classes)


def stored_parameter(
    name: str, annotation: object, what: str, *, required: bool, default: object
) -> StoredParameter | None:
    """Return the stored parameter that an annotation describes; ``None`` when it describes none.

    Raises:
        DefinitionError: it mixes stored classes and others.
    """
    members, many = _members(annotation), False
    if not any(_is_stored(member) for member in members):
        lists = [member for member in members if typing.get_origin(member) is list]
        inner = [one for member in lists for one in _members(typing.get_args(member)[0])]
        if not any(_is_stored(one) for one in inner):
            return None
        members, many = [*inner, *(member for member in members if member not in lists)], True
    optional = NoneType in members
    classes = tuple(member for member in members if member is not NoneType)
    keys = {getattr(one, "reference_key", None) for one in classes}
    if not all(_is_stored(one) for one in classes) or len(keys) != 1:
        raise DefinitionError(
            f"{what} asks for {name!r} as {annotation}: subscriptions, blocks and other types cannot be mixed in one"
            " parameter"
        )
    return StoredParameter(
        name, typing.cast("tuple[type[Stored], ...]", classes), many, required and not optional, default
    )


def subscription_ids(state: State) -> list[UUID]:
    """Return the subscriptions that a state refers to, in a stable order: for events and logs."""
    found: dict[UUID, None] = {}
    for key, value in state.items():
        if key == SUBSCRIPTION_ID:
            _note(found, value)
        for one in value if isinstance(value, list) else [value]:
            # A block's reference has an owner, not a subscription of its own.
            if isinstance(one, Mapping) and SUBSCRIPTION_ID in one:
                _note(found, one[SUBSCRIPTION_ID])
    return list(found)


def _note(found: dict[UUID, None], value: object) -> None:
    try:
        found[UUID(str(value))] = None
    except ValueError:
        return  # the author's own key, which happens to be called so


def _members(annotation: object) -> list[object]:
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return [one for member in typing.get_args(annotation) for one in _members(member)]
    return [annotation]


def _is_stored(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Stored)
