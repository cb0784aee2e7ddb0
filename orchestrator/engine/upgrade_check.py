"""Find what the code of this program would do to a process that other code has started. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import CodeType
from typing import Any

from orchestrator.engine.plan import Leaf, Outline, Plan
from orchestrator.engine.plan_change import Effect, check_kind, list_effects
from orchestrator.engine.process import Process
from orchestrator.errors import WorkflowChangedError
from orchestrator.workflow import StepKind

MAX_REASON = 300
"""The most characters of a reason, which may repeat a value of the state."""


class Trouble(StrEnum):
    """The kind of a finding: an error, or something worth knowing."""

    WORKFLOW_GONE = "workflow_gone"
    WORKFLOW_BROKEN = "workflow_broken"
    STEP_GONE = "step_gone"
    STEP_KIND = "step_kind"
    ARGUMENT = "argument"
    STATE = "state"
    FORM = "form"
    REPEATED = "repeated"
    MISSED = "missed"
    NEW_BUT_MISSED = "new_but_missed"
    DROPPED = "dropped"
    LATER_ARGUMENT = "later_argument"


NOTICES = frozenset({Trouble.NEW_BUT_MISSED, Trouble.DROPPED, Trouble.LATER_ARGUMENT})
"""Findings that may be intended: they are reported, and do not count as broken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What this code would do to processes at a step.

    Args:
        step: where they stand; ``None`` when they have no step.
        what: what happens, as text.
        todo: what to do about it.
    """

    trouble: Trouble
    workflow: str
    step: str | None
    what: str
    todo: str

    @property
    def breaks(self) -> bool:
        """Return whether it must be resolved before the code is deployed."""
        return self.trouble not in NOTICES


def check_process(plan: Plan, process: Process, before: Outline | None) -> Iterator[Finding]:
    """Yield what a plan would do to a process.

    Args:
        before: the steps of the process's plan, if it is another one; ``None`` when they are unknown.
    """

    def found(trouble: Trouble, what: str, todo: str) -> Finding:
        return Finding(trouble, process.workflow, process.step, what, todo)

    if process.unreadable:
        keys = ", ".join(sorted(process.unreadable))
        yield found(
            Trouble.STATE,
            f"the state has values that cannot be read: {keys}",
            "replace or remove them with 'orchestrator patch', or abort the process",
        )
        return
    try:
        leaf = plan.locate(process)
    except WorkflowChangedError:
        yield found(
            Trouble.STEP_GONE,
            "the code no longer has this step: the process fails, or takes no input, as soon as it is touched",
            "keep the step under this name until no process stands at it, or let these processes go on, or abort them, first",
        )
        return
    step = leaf.step.name
    if process.plan != plan.fingerprint:
        try:
            check_kind(before, plan.outline, step, process.status)
        except WorkflowChangedError:
            yield found(
                Trouble.STEP_KIND,
                f"the code has a step of the kind {leaf.step.kind.value!r} under this name, and the process stands at another",
                "give a step with a new meaning a new name",
            )
            return
        for effect, name in list_effects(before, plan.outline, step):
            yield found(Trouble(effect.value), *_describe_effect(effect, name))
    yield from _check_arguments(plan, process, leaf, found)


def _describe_effect(effect: Effect, name: str) -> tuple[str, str]:
    match effect:
        case Effect.REPEATED:
            return (
                f"{name!r} has had its turn and comes again: it was moved behind this step",
                "leave it where it was, or make sure that it may run twice; or let these processes end first",
            )
        case Effect.MISSED:
            return (
                f"{name!r} has not run yet and never will: it was moved before this step",
                "leave it behind this step, or let these processes go past it first",
            )
        case Effect.NEW_BUT_MISSED:
            return (
                f"the new step {name!r} does not run in these processes: it lies before this step",
                "put it behind this step if they need it; later steps need a default for the keys that it returns",
            )
        case Effect.DROPPED:
            return (
                f"{name!r} does not run any more",
                "later steps need a default for the keys that it returned",
            )


def _check_arguments(
    plan: Plan, process: Process, leaf: Leaf, found: Callable[[Trouble, str, str], Finding]
) -> Iterator[Finding]:
    state, add_default = process.state, "give the parameter a default, or patch the state of these processes"
    coming: set[str] = set()
    if leaf.step.kind is StepKind.AWAIT:
        assert leaf.step.callback is not None  # noqa: S101 - an AWAIT leaf always has terms
        coming.add(leaf.step.callback.result_key)
        following = plan.leaves[leaf.position + 1 : leaf.position + 2]
        checked = following[0] if following else leaf
    else:
        checked = leaf
    for name, reason in checked.arguments.list_misfits(state, coming):
        yield found(Trouble.ARGUMENT, f"{checked.step.name!r} asks for {name!r} {_shorten(reason)}", add_default)
    named: set[str] = set(coming)
    for later in plan.leaves[leaf.position :]:
        if later.position > checked.position:
            for parameter in later.arguments.parameters:
                if parameter.required and parameter.name not in state and parameter.name not in named:
                    yield found(
                        Trouble.LATER_ARGUMENT,
                        f"{later.step.name!r} asks for {parameter.name!r}, which the state does not have; no step before it names"
                        " that key",
                        f"make sure that a step before it returns the key; else {add_default}",
                    )
        named |= _names_in(later)


def _names_in(leaf: Leaf) -> set[str]:
    """Return every name and text in the code of a step: the keys that it puts into the state are among them, as a rule."""
    names: set[str] = set()
    if leaf.step.callback is not None:
        names |= {leaf.step.callback.result_key, leaf.step.callback.route_key}
    function: Any = leaf.step.function or leaf.step.form
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else None
    known = getattr(function, "__globals__", {})
    pending: list[Any] = [getattr(function, "__code__", None)]
    while pending:
        one = pending.pop()
        if isinstance(one, CodeType):
            pending += [*one.co_consts, *one.co_names, *one.co_varnames]
            # A key may be a constant of the module.
            pending += [known[name] for name in one.co_names if isinstance(known.get(name), str)]
        elif isinstance(one, str):
            names.add(one)
        elif isinstance(one, tuple):
            pending += one
    return names


def _shorten(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 1]}…"
