"""Conditions around steps: evaluated on the state, or by a step of their own when they need more than that."""

from __future__ import annotations

import functools
import inspect
import operator
import typing
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from types import UnionType
from typing import Any, TypeVar, cast

from orchestrator.errors import DefinitionError
from orchestrator.types import Stored
from orchestrator.workflow.values import Block, Predicate, Step, StepFunction, StepKind, StepList

Conditional = TypeVar("Conditional", Step, Block, Step | Block, StepList)


def conditional(predicate: Callable[..., bool | Awaitable[bool]]) -> Callable[[Conditional], Conditional]:
    """Make steps depend on a predicate: when it is false they are logged as skipped and never run.

    A step's condition is evaluated once, in the commit that arrives at the step, and not again on a retry. In a list it is
    evaluated for each step; for a ``step_group`` or ``callback_step`` once for all of it.

    A predicate that needs more than the state (a model, ``session``, several values by their names, or to await something)
    gets its parameters as a step does. It becomes a step of its own, named after the first step that depends on it, and is
    evaluated once for all of them; then a list of steps is returned.

    Args:
        predicate: takes the state, or nothing, and is quick and without side effects; or one that needs more, as above.
    """
    if not callable(predicate):
        raise DefinitionError(f"conditional(...) takes a function, not {predicate!r}")
    needs_a_step = _needs_a_step(predicate)

    def wrap(wrapped: Conditional) -> Conditional:
        if not isinstance(wrapped, StepList | Step | Block):
            raise DefinitionError(f"conditional(...) wraps steps and step lists, not {wrapped!r}")
        if not needs_a_step:
            return _guard(wrapped, cast("Predicate", predicate))
        # A list of steps can be used wherever a step can, whatever was wrapped.
        return cast("Conditional", _decide_first(wrapped, predicate))

    return wrap


def _guard(wrapped: Conditional, predicate: Predicate) -> Conditional:
    if isinstance(wrapped, StepList):
        return StepList([_guard(item, predicate) for item in wrapped])
    return replace(wrapped, conditions=(predicate, *wrapped.conditions))


def _decide_first(wrapped: Step | Block | StepList, predicate: Callable[..., Any]) -> Step | Block | StepList:
    """Put a step that evaluates a predicate and stores the result in the state before the steps that depend on it."""
    steps = wrapped if isinstance(wrapped, StepList) else StepList([wrapped])
    if not steps:
        return steps
    name = f"{steps[0].name}: condition"
    decide = Step(name, StepKind.RUN, _deciding(predicate, name))
    return decide >> _guard(steps, operator.itemgetter(name))


def _deciding(predicate: Callable[..., Any], key: str) -> StepFunction:
    if inspect.iscoroutinefunction(predicate):

        @functools.wraps(predicate)
        async def decide(**arguments: Any) -> dict[str, bool]:
            return {key: bool(await predicate(**arguments))}

        return decide

    @functools.wraps(predicate)
    def decide_in_a_thread(**arguments: Any) -> dict[str, bool]:
        return {key: bool(predicate(**arguments))}

    return decide_in_a_thread


def _needs_a_step(predicate: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(predicate):
        return True
    try:
        parameters = inspect.signature(predicate).parameters
    except (TypeError, ValueError):
        return False  # a builtin, for example operator.itemgetter("wanted"): over the state
    try:
        hints = typing.get_type_hints(predicate)
    except (TypeError, NameError, AttributeError):
        hints = {}  # an annotation that only type checkers can read, so of no model
    required = [one for one in parameters.values() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    return (
        len(required) > 1
        or "session" in parameters
        or any(_names_a_model(hints[name]) for name in parameters if name in hints)
    )


def _names_a_model(annotation: object) -> bool:
    return any(isinstance(one, type) and issubclass(one, Stored) for one in _members(annotation))


def _members(annotation: object) -> Iterator[object]:
    if typing.get_origin(annotation) in (typing.Union, UnionType, list):
        for one in typing.get_args(annotation):
            yield from _members(one)
    else:
        yield annotation
