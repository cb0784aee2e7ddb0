"""Authorize starts, resumes and retries with the callbacks of workflows and steps, at every entry point.

A callback is an async or plain function – a plain one runs in a thread – that returns true or false. Like a step it
requests its arguments by name: any of ``user``, ``workflow``, ``step`` (``None`` for a start), ``action``, ``roles``,
``claims`` and ``session``::

    async def only_the_noc(action: str, claims: Mapping[str, Any]) -> bool:
        return action == "start" or "noc" in claims.get("groups", ())
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

from orchestrator.errors import DefinitionError

AuthCallback = Callable[..., Awaitable[bool]] | Callable[..., bool]
"""Decides whether a user may do something. It refuses by returning false, not by raising."""

ASKED_WITH = ("user", "workflow", "step", "action", "roles", "claims", "session")

MAX_USER = 200
"""Characters of a user's name."""


def is_user_name(name: str) -> bool:
    """Return whether the audit trail takes a name: 1 to 200 printable characters."""
    return bool(name.strip()) and len(name) <= MAX_USER and name.isprintable()


class Role(StrEnum):
    """What a caller of the HTTP API may do. Each role includes those before it."""

    READ = "read"
    START = "start"
    OPERATE = "operate"
    ADMIN = "admin"


def include_lower(roles: Iterable[Role]) -> frozenset[Role]:
    """Return the roles with all that they include."""
    order = list(Role)
    return frozenset(order[: max((order.index(role) for role in roles), default=-1) + 1])


class User(str):
    """The name of a user, with what the HTTP API knows of him beyond it.

    A plain name, from a message or the command line, has neither roles nor claims: nobody has authenticated it.

    Args:
        roles: what he may do, with all that they include.
        claims: what his token says; empty for an API key.
    """

    __slots__ = ("claims", "roles")

    roles: frozenset[Role]
    claims: Mapping[str, Any]

    def __new__(cls, name: str, roles: Iterable[Role] = (), claims: Mapping[str, Any] = MappingProxyType({})) -> Self:
        user = super().__new__(cls, name)
        user.roles = include_lower(roles)
        user.claims = claims
        return user

    @classmethod
    def of(cls, name: str) -> User:
        """Return a name as a user; one that is a user already stays as it is."""
        return name if isinstance(name, User) else cls(name)


class Action(StrEnum):
    """An action that a callback permits or refuses."""

    START = "start"
    RESUME = "resume"
    RETRY = "retry"
    SKIP = "skip"
    PATCH = "patch"
    REWIND = "rewind"


@dataclass(frozen=True, slots=True)
class Attempted:
    """An action by a user on a workflow or step.

    Args:
        step: the step at which the process stands; ``None`` for a start.
    """

    user: str
    workflow: str
    step: str | None
    action: Action


def check_callback(callback: Callable[..., object] | None, what: str, known: Collection[str] = ASKED_WITH) -> None:
    """Check that a callback can be called.

    Raises:
        DefinitionError: it is no function, or has a parameter for which there is no value.
    """
    if callback is None:
        return
    if not callable(callback):
        raise DefinitionError(f"{what} takes a function, not {callback!r}")
    for parameter in _parameters(callback, what):
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.name in known:
            continue
        if parameter.default is parameter.empty:
            raise DefinitionError(
                f"{what} asks for {parameter.name!r}; only these are passed: {', '.join(map(repr, known))}"
            )


def given(callback: Callable[..., object], known: Mapping[str, object]) -> Callable[[], object]:
    """Bind those of the ``known`` arguments that the function requests; return it, ready to be called."""
    wanted = _parameters(callback, repr(callback))
    everything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted)
    names = set(known) if everything else {parameter.name for parameter in wanted} & set(known)
    return functools.partial(callback, **{name: known[name] for name in names})


def _parameters(callback: Callable[..., object], what: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{what}: the parameters of {callback!r} cannot be read: {error}") from error
