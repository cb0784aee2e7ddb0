"""Describe what a change of plan means for a process at a given step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from orchestrator.engine.plan import Outline
from orchestrator.errors import WorkflowChangedError
from orchestrator.types import ProcessStatus
from orchestrator.workflow import StepKind

_EXECUTED = frozenset({StepKind.RUN.value, StepKind.ACTION.value})
_KINDS = {
    ProcessStatus.RUNNING: _EXECUTED,
    ProcessStatus.WAITING: _EXECUTED,
    ProcessStatus.SUSPENDED: frozenset({StepKind.INPUT.value}),
    ProcessStatus.AWAITING_CALLBACK: frozenset({StepKind.AWAIT.value}),
}
"""The kinds of the present step of a process in each status. A failed process begins its step again, of any kind."""


class Effect(StrEnum):
    """What a changed plan does to a step of a process, other than running it once in its turn."""

    REPEATED = "repeated"
    MISSED = "missed"
    NEW_BUT_MISSED = "new_but_missed"
    DROPPED = "dropped"


def list_effects(before: Outline | None, after: Outline, step: str) -> Iterator[tuple[Effect, str]]:
    """Yield each step that comes again or never runs in a process that is moved from one plan to another.

    Args:
        before, after, step: as in :func:`describe_change`; nothing is yielded when the former plan is unknown.
    """
    if before is None:
        return
    had, has = _Steps(before, step), _Steps(after, step)
    for name in has.names:
        if name not in had.by_name and name in has.passed:
            yield Effect.NEW_BUT_MISSED, name
        elif name in had.by_name and (name in had.passed) != (name in has.passed):
            yield Effect.REPEATED if name in had.passed else Effect.MISSED, name
    for name in had.coming:
        if name not in has.by_name:
            yield Effect.DROPPED, name


def describe_change(before: Outline | None, after: Outline, step: str) -> str:
    """Return a text that names each step that is new, gone, moved past the process's position, or different after it.

    Args:
        before: the process's former plan; ``None`` when it is unknown.
        step: the process's present step, which ``after`` has. The steps before it are over.
    """
    if before is None:
        return "the steps of the plan that it had are not known"
    had, has = _Steps(before, step), _Steps(after, step)
    found = [
        *_describe_new(had, has),
        *_describe_gone(had, has),
        *_describe_moved(had, has),
        *_describe_different(had, has),
    ]
    return "; ".join(found) or "no step that comes is different"


def check_kind(before: Outline | None, after: Outline, step: str, status: ProcessStatus) -> None:
    """Check that a process can go on at its step in another plan.

    Raises:
        WorkflowChangedError: the step of this name is of another kind.
    """
    kinds = _KINDS.get(status)
    if kinds is None:
        return
    had = None if before is None else _Steps(before, step).find(step)
    kind = str(_Steps(after, step).by_name[step]["kind"])
    if kind in kinds and (had is None or had["kind"] == kind):
        return
    raise WorkflowChangedError(
        f"the step {step!r}, at which this process stands, is of the kind {kind!r} in the plan to which it is to move, and was"
        f" {'another' if had is None else repr(had['kind'])} before: give a step with a new meaning a new name, or abort the"
        " process."
    )


class _Steps:
    """The steps of a plan and their places relative to one of them."""

    def __init__(self, outline: Outline, place: str) -> None:
        self.names = [str(one["name"]) for one in outline]
        self.by_name = dict(zip(self.names, outline, strict=True))
        at = self.names.index(place) if place in self.by_name else len(self.names)
        self.passed = frozenset(self.names[:at])
        self.coming = self.names[at:]

    def find(self, name: str) -> dict[str, object] | None:
        found = self.by_name.get(name)
        return None if found is None else dict(found)


def _describe_new(had: _Steps, has: _Steps) -> Iterator[str]:
    for name in has.names:
        if name not in had.by_name:
            does_not = "does not run in this process: it lies before its place"
            yield f"+ {name}, {does_not if name in has.passed else 'runs'}"


def _describe_gone(had: _Steps, has: _Steps) -> Iterator[str]:
    for name in had.names:
        if name not in has.by_name:
            yield f"- {name}, {'had its turn' if name in had.passed else 'does not run any more'}"


def _describe_moved(had: _Steps, has: _Steps) -> Iterator[str]:
    for name in has.names:
        if name in had.by_name and (name in had.passed) != (name in has.passed):
            yield f"{name} moved " + (
                "behind its place: comes again"
                if name in had.passed
                else "before its place: does not run in this process"
            )
    if _order(had.coming, has.coming) != _order(has.coming, had.coming):
        yield "the order of the steps that come"


def _describe_different(had: _Steps, has: _Steps) -> Iterator[str]:
    for name in has.coming:
        old, new = had.by_name.get(name), has.by_name[name]
        if old is not None and old != new:
            changed = [key.replace("_", " ") for key in {**old, **new} if old.get(key) != new.get(key)]
            yield f"{name}: {', '.join(changed)}"


def _order(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name in set(others)]
