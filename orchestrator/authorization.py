"""Authorize starts, resumes and retries with the callbacks of workflows and steps, at every entry point.

A callback is an async or plain function – a plain one runs in a thread – that returns true or false. Like a step it
requests its arguments by name: any of ``user``, ``workflow``, ``step`` (``None`` for a start) and ``action``::

    async def only_the_noc(user: str, action: str) -> bool:
        return action == "start" or user in await members_of("noc")
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import DefinitionError

AuthCallback = Callable[..., Awaitable[bool]] | Callable[..., bool]
"""Decides whether a user may do something. It refuses by returning false, not by raising."""

ASKED_WITH = ("user", "workflow", "step", "action")


class Action(StrEnum):
    """An action that a callback permits or refuses."""

    START = "start"
    RESUME = "resume"
    RETRY = "retry"
    SKIP = "skip"
    PATCH = "patch"


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
