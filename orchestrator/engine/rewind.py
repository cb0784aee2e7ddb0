"""Compute a rewind to an earlier step: its position, and the state with which the step begins again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic_core import to_json

from orchestrator.engine.events import Rewound
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import Process
from orchestrator.errors import ConflictError, InvalidInputError, WorkflowChangedError
from orchestrator.types import ProcessStatus, State, StepStatus

_FINISHED = frozenset({StepStatus.SUCCESS, StepStatus.SKIPPED, StepStatus.COMPLETE})


@dataclass(frozen=True, slots=True)
class PastEntry:
    """The part of a log entry that a rewind needs.

    Args:
        unreadable: keys of the delta whose values cannot be read, each with the reason; they are not in ``delta``.
    """

    sequence: int
    kind: str
    name: str
    status: str
    note: str | None
    delta: State
    removed: tuple[str, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)


def plan_rewind(
    plan: Plan, process: Process, entries: Sequence[PastEntry], step: str, user: str, reason: str
) -> Rewound:
    """Return the event that takes a process back to a step, with the state as it was after the step before it.

    Args:
        entries: the whole log of the process, in order.

    Raises:
        InvalidInputError: the workflow has no step of this name.
        ConflictError: the process has not reached the step, or a condition skipped it; the state there cannot be read; the
            process already waits for the input of this step.
    """
    if step not in plan.positions:
        names = ", ".join(repr(leaf.step.name) for leaf in plan.leaves)
        raise InvalidInputError(f"the workflow {process.workflow!r} has no step {step!r}; its steps are {names}")
    # A callback step begins again only as a whole, because its token is used up, or its job is lost.
    target = plan.leaves[plan.leaves[plan.positions[step]].restart]
    newest = {entry.name: entry for entry in entries if entry.kind == "step"}
    _require_passed(plan, process, target, newest)
    _require_entered(plan, target, newest)
    before = {leaf.step.name for leaf in plan.leaves[: target.position]}
    finished = [e.sequence for e in entries if e.kind == "step" and e.name in before and e.status in _FINISHED]
    sequence = finished[-1] if finished else 1
    state = _fold(entries, sequence)
    delta = {key: value for key, value in state.items() if not _is_same(process.state, key, value)}
    removed = tuple(sorted(key for key in (*process.state, *process.unreadable) if key not in state))
    if process.status is ProcessStatus.SUSPENDED and process.step == target.step.name and not delta and not removed:
        # Most likely a repetition of the same request.
        raise ConflictError(f"the process waits for the input of {process.step!r} already, with the state of then")
    return Rewound(user, reason, target.step.name, sequence, delta, removed)


def _require_passed(plan: Plan, process: Process, target: Leaf, newest: Mapping[str, PastEntry]) -> None:
    """Check that the process has reached this step."""
    try:
        has_passed = target.position <= plan.locate(process).position
    except WorkflowChangedError:
        # The code no longer has the present step, so its position says nothing, but the log does.
        has_passed = target.step.name in newest
    if not has_passed:
        raise ConflictError(
            f"the process stands at {process.step!r} and has not come to {target.step.name!r}: a rewind goes back only"
        )


def _require_entered(plan: Plan, target: Leaf, newest: Mapping[str, PastEntry]) -> None:
    """Check that the conditions around a step once held: they are evaluated only at the first step of their block."""
    around = [leaf for leaf in _list_around(plan, target) if _was_left_out(newest.get(leaf.step.name))]
    if around and _was_left_out(newest.get(target.step.name)):
        raise ConflictError(
            f"a condition has left out {target.step.name!r}, with other steps: rewind to {around[0].step.name!r}, the first of"
            " them, where the condition is asked again"
        )


def _list_around(plan: Plan, target: Leaf) -> Iterator[Leaf]:
    """Yield the earlier steps at which the conditions of blocks around this one are evaluated, the outermost first."""
    for leaf in plan.leaves[: target.position]:
        if any(guard.end > target.position for guard in leaf.guards):
            yield leaf


def _was_left_out(entry: PastEntry | None) -> bool:
    # An operator who skips a step gives a reason.
    return entry is None or (entry.status == StepStatus.SKIPPED and entry.note is None)


def _fold(entries: Sequence[PastEntry], sequence: int) -> State:
    state: State = {}
    unreadable: dict[str, str] = {}
    for entry in entries:
        if entry.sequence > sequence:
            break
        for key in (*entry.delta, *entry.unreadable, *entry.removed):
            state.pop(key, None)
            unreadable.pop(key, None)
        state.update({key: value for key, value in entry.delta.items() if key not in entry.removed})
        unreadable.update(entry.unreadable)
    for key, why in unreadable.items():
        raise ConflictError(
            f"the value of {key!r} as it was after entry {sequence} of the log cannot be read ({why}): rewind to another step,"
            " or patch the state and retry"
        )
    return state


def _is_same(state: State, key: str, value: object) -> bool:
    # As JSON: for Python 1, 1.0 and True are equal.
    return key in state and to_json(state[key]) == to_json(value)
