"""Decide what an event does to a process: return the next process and what must be done.

Everything that affects the progress of a process is here and in the draft. The function has no I/O, clock or randomness, and
never changes its arguments. The caller stores the decision in one transaction, guarded by the process's attempt and
position, and only then acts on it.
"""

from __future__ import annotations

from orchestrator.engine import events
from orchestrator.engine.decision import (
    CallbackChange,
    CloseCallback,
    Decision,
    Dispatch,
    Entry,
    EntryKind,
    MoveCallback,
    OpenCallback,
    ParkCallback,
)
from orchestrator.engine.draft import UNTRIED, Draft
from orchestrator.engine.events import Event, Loss, Stamp
from orchestrator.engine.losses import judge
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.plan_change import check_kind, describe_change
from orchestrator.engine.process import SYSTEM, Process, open_copy
from orchestrator.engine.transitions import require_allowed
from orchestrator.errors import (
    FencedError,
    IllegalTransitionError,
    PlanMismatchError,
    WorkflowChangedError,
)
from orchestrator.types import ProcessStatus, StepStatus
from orchestrator.workflow import StepKind

__all__ = [
    "CallbackChange",
    "CloseCallback",
    "Decision",
    "Dispatch",
    "Entry",
    "EntryKind",
    "MoveCallback",
    "OpenCallback",
    "ParkCallback",
    "decide",
]


NO_CONSUMER = "no consumer"
"""The name of the log entries about a step that no living consumer can run."""

_OF_ANY_PLAN = (events.Aborted, events.Patched, events.PlanChanged, events.CodeChanged)
"""Events that do not depend on the plan: they keep the process's plan, or change it."""


def decide(
    plan: Plan, process: Process, event: Event, stamp: Stamp, move: events.PlanChanged | None = None
) -> Decision:
    """Decide what an event does to a process.

    Args:
        move: the change of plan to make first, if the process has another plan than this one.

    Raises:
        IllegalTransitionError: the event does not fit the process's status or position; nothing changes.
        FencedError: the event comes from an attempt that was overtaken.
        PlanMismatchError: the process has another plan, which decides what is next.
        WorkflowChangedError: the code no longer has the step at which the process stands.
    """
    require_allowed(process, event)
    draft = Draft(plan, process, stamp)
    if move is not None:
        _change_plan(draft, move, leaves=isinstance(event, events.Rewound))
    elif process.plan != plan.fingerprint and not isinstance(event, _OF_ANY_PLAN):
        if process.plan is not None:
            raise PlanMismatchError(
                f"the process has the plan {process.plan} of {process.workflow!r}, and this program has {plan.fingerprint}"
            )
        draft.change(plan=plan.fingerprint)
    match event:
        case events.Started():
            _start(draft, event)
        case events.StepSucceeded():
            _step_succeeded(draft, event)
        case events.StepFailed():
            _step_failed(draft, event)
        case events.AttemptLost():
            _attempt_lost(draft, event)
        case events.NotRun():
            leaf = plan.locate(process)
            draft.change(position=leaf.position)
            draft.log_process(NO_CONSUMER, note=event.note, author=SYSTEM)
            draft.command(leaf)
        case events.RetryDue():
            plan.locate(process)
            draft.resume(process.actor, "due again")
        case events.CallbackCompleted():
            leaf = _waiting_leaf(plan, process, event.position)
            assert leaf.step.callback is not None  # noqa: S101 - an AWAIT leaf always has terms
            draft.log_step(
                leaf, StepStatus.SUCCESS, delta={leaf.step.callback.result_key: event.payload}, note=event.note
            )
            draft.callback = CloseCallback("used")
            draft.arrive(leaf.position + 1)
        case events.CallbackFailed():
            leaf = _waiting_leaf(plan, process, event.position)
            draft.callback = CloseCallback("failed")
            draft.fail(leaf, event.failure, note=event.note)
        case events.Submitted():
            leaf = plan.locate(process)
            if leaf.step.kind is not StepKind.INPUT:
                raise IllegalTransitionError(f"the step {leaf.step.name!r} takes no input")
            draft.change(actor=event.user)
            draft.log_step(leaf, StepStatus.SUCCESS, delta=event.delta)
            draft.arrive(leaf.position + 1)
        case events.Retried():
            _retry(draft, event)
        case events.Aborted():
            _abort(draft, event)
        case events.Patched():
            _patch(draft, event)
        case events.StepSkipped():
            _skip(draft, event)
        case events.Rewound():
            _rewind(draft, event)
        case events.PlanChanged():
            _change_plan(draft, event)
            if process.status is ProcessStatus.RUNNING:
                draft.command(plan.locate(process))
        case events.CodeChanged():
            draft.fail(None, event.failure)
            # A retry starts a new external job, so a late answer of the present one must not count.
            draft.callback = CloseCallback("superseded")
    return draft.decision()


def _start(draft: Draft, event: events.Started) -> None:
    draft.log_process("created", delta=event.state, note=event.note)
    draft.arrive(0)


def _step_succeeded(draft: Draft, event: events.StepSucceeded) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    draft.log_step(leaf, StepStatus.SUCCESS, delta=event.delta, note=event.note, ran=True)
    draft.arrive(leaf.position + 1)


def _step_failed(draft: Draft, event: events.StepFailed) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    draft.change(**UNTRIED | {"failures": draft.process.failures + 1})
    if event.retry_in is None:
        draft.fail(leaf, event.failure, note=event.note, ran=True)
        return
    draft.log_step(leaf, StepStatus.WAITING, failure=event.failure, note=event.note, ran=True)
    draft.change(status=ProcessStatus.WAITING)
    draft.retry_in = event.retry_in


def _attempt_lost(draft: Draft, event: events.AttemptLost) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    # A claim compares the command's position with the process's. So both must follow a step that the code has moved.
    draft.change(position=leaf.position)
    verdict = judge(draft.process, event)
    draft.process = open_copy(verdict.process)
    if verdict.failure is not None:
        draft.fail(leaf, verdict.failure, ran=True)
        return
    draft.log_process("given back" if event.loss is Loss.GIVEN_BACK else "attempt lost", note=verdict.note)
    if verdict.pause is None:
        draft.command(leaf)
    else:
        draft.change(status=ProcessStatus.WAITING)
        draft.retry_in = verdict.pause


def _retry(draft: Draft, event: events.Retried) -> None:
    leaf = draft.plan.locate(draft.process)
    draft.change(actor=event.user, status=ProcessStatus.RUNNING, **UNTRIED)
    draft.log_process("retried")
    if not draft.process.entered:
        draft.arrive(leaf.position)
        return
    start = draft.plan.leaves[leaf.restart]
    if start is not leaf:
        draft.change(rewinds=draft.process.rewinds + 1)
    draft.change(position=start.position, step=start.step.name)
    # An input step can have failed only because the code lacked it for a while. It suspends the process once more.
    if draft.enter(start):
        draft.arrive(start.position + 1)


def _change_plan(draft: Draft, event: events.PlanChanged, *, leaves: bool = False) -> None:
    """Move the process to the plan. Only a process that ``leaves`` its step at once may be at a step that the plan lacks."""
    try:
        leaf = draft.plan.locate(draft.process)
    except WorkflowChangedError:
        if not leaves:
            raise
        draft.change(plan=draft.plan.fingerprint)
        note = f"plan {event.number}: - {draft.process.step}, at which the process stood"
        draft.log_process("plan changed", note=note, author=SYSTEM)
        return
    step, before = leaf.step, None if event.before is None else tuple(event.before)
    check_kind(before, draft.plan.outline, step.name, draft.process.status)
    note = f"plan {event.number}: {describe_change(before, draft.plan.outline, step.name)}"
    draft.change(plan=draft.plan.fingerprint, position=leaf.position)
    draft.log_process("plan changed", note=note, author=SYSTEM)
    if step.kind is StepKind.AWAIT:
        draft.callback = MoveCallback(leaf.position)
    elif step.kind is StepKind.ACTION:
        draft.callback = MoveCallback(leaf.position + 1)


def _abort(draft: Draft, event: events.Aborted) -> None:
    draft.change(actor=event.user, status=ProcessStatus.ABORTED)
    try:
        leaf = draft.plan.locate(draft.process)
    except WorkflowChangedError:
        pass  # the code no longer has the step; an operator can abort the process all the same
    else:
        draft.log_step(leaf, StepStatus.ABORT, note=event.reason)
    draft.log_process("aborted", note=event.reason)
    draft.callback = CloseCallback("superseded")


def _patch(draft: Draft, event: events.Patched) -> None:
    draft.log_process(
        "patched", delta=dict(event.delta), removed=tuple(event.removed), note=event.reason, author=event.user
    )


def _skip(draft: Draft, event: events.StepSkipped) -> None:
    leaf = draft.plan.locate(draft.process)
    end = draft.plan.skipped_by(leaf)
    draft.change(actor=event.user, status=ProcessStatus.RUNNING)
    for skipped in draft.plan.leaves[leaf.position : end]:
        draft.log_step(skipped, StepStatus.SKIPPED, note=event.reason)
    draft.callback = CloseCallback("superseded")
    draft.arrive(end)


def _rewind(draft: Draft, event: events.Rewound) -> None:
    target = draft.plan.leaves[draft.plan.positions[event.step]]
    # If the process leaves a callback step, or begins one again, its token is no longer valid.
    draft.callback = CloseCallback("superseded")
    draft.change(actor=event.user, status=ProcessStatus.RUNNING, rewinds=draft.process.rewinds + 1)
    note = f"from {draft.process.step!r} to {event.step!r}, with the state after entry {event.sequence}: {event.reason}"
    draft.log_process("rewound", delta=dict(event.delta), removed=event.removed, note=note)
    draft.arrive(target.position)


def _fence(process: Process, attempt: int) -> None:
    if attempt != process.attempt:
        raise FencedError(f"attempt {attempt} was overtaken: the process is at attempt {process.attempt}")


def _waiting_leaf(plan: Plan, process: Process, position: int) -> Leaf:
    leaf = plan.locate(process)
    if process.position != position or leaf.step.kind is not StepKind.AWAIT:
        raise IllegalTransitionError("this callback belongs to another step than the one the process waits at")
    return leaf
