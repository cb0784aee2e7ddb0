"""Decide what an event does to a process: return the next process and what must be done.

Everything that affects where a process stands lives in this file. It has no I/O, clock or chance, and never changes its
arguments. The caller stores the decision in one transaction, guarded by the process's attempt and position, and only
then acts on it.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.engine import events
from orchestrator.engine.decision import (
    CallbackChange,
    CloseCallback,
    Decision,
    Dispatch,
    Entry,
    EntryKind,
    OpenCallback,
    ParkCallback,
)
from orchestrator.engine.events import Event, Failure, Loss, Stamp
from orchestrator.engine.losses import judge
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import SYSTEM, Process
from orchestrator.engine.transitions import TRANSITIONS, refusal
from orchestrator.errors import FencedError, IllegalTransitionError, UnreadableStateError, WorkflowChangedError
from orchestrator.text import format_error, format_traceback, shorten
from orchestrator.types import ProcessStatus, State, StepStatus
from orchestrator.workflow import StepKind

__all__ = [
    "CallbackChange",
    "CloseCallback",
    "Decision",
    "Dispatch",
    "Entry",
    "EntryKind",
    "OpenCallback",
    "ParkCallback",
    "decide",
]


_UNTRIED = {"failures": 0, "lost": 0, "interruptions": 0, "crashes": 0}
"""The counters of a step that has not been tried yet."""

NO_CONSUMER = "no consumer"
"""The name of the log entries about a step that no living consumer can run."""

NOC = "NOC"
"""The assignee of a task that has found a subscription to be different from what the network has."""


def decide(plan: Plan, process: Process, event: Event, stamp: Stamp) -> Decision:
    """Decide what an event does to a process.

    Raises:
        IllegalTransitionError: the event does not fit the process's status or position; nothing changes.
        FencedError: the event comes from an attempt that was overtaken.
        WorkflowChangedError: the code no longer has the step at which the process stands.
    """
    if process.status not in TRANSITIONS[type(event)]:
        raise IllegalTransitionError(refusal(type(event), process.status))
    draft = _Draft(plan, process, stamp)
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
            draft.log_step(leaf, StepStatus.SUCCESS, delta={leaf.step.callback.result_key: event.payload})
            draft.callback = CloseCallback("used")
            draft.arrive(leaf.position + 1)
        case events.CallbackFailed():
            leaf = _waiting_leaf(plan, process, event.position)
            draft.callback = CloseCallback("failed")
            draft.fail(leaf, event.failure)
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
        case events.CodeChanged():
            draft.fail(None, event.failure)
            # Whatever an external job may still answer, a retry will start another one.
            draft.callback = CloseCallback("superseded")
    return draft.decision()


class _Draft:
    """A decision in the making. It lives for one call of :func:`decide` and never leaves it."""

    def __init__(self, plan: Plan, process: Process, stamp: Stamp) -> None:
        self.plan, self.before, self.process, self.stamp = plan, process, process, stamp
        self.entries: list[Entry] = []
        self.dispatch: Dispatch | None = None
        self.callback: CallbackChange | None = None
        self.retry_in: float | None = None

    def change(self, **changes: object) -> None:
        self.process = replace(self.process, **changes)  # type: ignore[arg-type]  # dataclasses.replace takes them by name

    def log(self, entry: Entry) -> None:
        state = {**self.process.state, **entry.delta}
        for key in entry.removed:
            state.pop(key, None)
        gone = {*entry.delta, *entry.removed}
        unreadable = {key: why for key, why in self.process.unreadable.items() if key not in gone}
        self.change(sequence=entry.sequence, state=state, unreadable=unreadable)
        self.entries.append(entry)

    def log_step(
        self,
        leaf: Leaf,
        status: StepStatus,
        *,
        delta: State | None = None,
        failure: Failure | None = None,
        note: str | None = None,
        ran: bool = False,
    ) -> None:
        process = self.process
        self.log(
            Entry(
                sequence=process.sequence + 1,
                kind=EntryKind.STEP,
                name=leaf.step.name,
                status=status,
                attempt=process.attempt,
                author=process.actor,
                position=leaf.position,
                delta=delta or {},
                failure=failure,
                note=note,
                ran=ran,
            )
        )

    def log_process(
        self,
        name: str,
        *,
        delta: State | None = None,
        removed: tuple[str, ...] = (),
        note: str | None = None,
        failure: Failure | None = None,
        author: str | None = None,
    ) -> None:
        process = self.process
        self.log(
            Entry(
                sequence=process.sequence + 1,
                kind=EntryKind.PROCESS,
                name=name,
                status=process.status,
                attempt=process.attempt,
                author=author or process.actor,
                delta=delta or {},
                removed=removed,
                note=note,
                failure=failure,
            )
        )

    def arrive(self, position: int) -> None:
        """Move to ``position`` and on, past markers and skipped steps, until something must run, wait or end."""
        while position < len(self.plan):
            leaf = self.plan.leaves[position]
            self.change(position=position, step=leaf.step.name, entered=False, **_UNTRIED)
            try:
                self.process.require_readable()
                end = leaf.find_refusal(self.process.state)
            except UnreadableStateError as error:
                self.fail(leaf, Failure(type(error).__name__, str(error)))
                return
            except (Exception, SystemExit) as error:
                # The predicate is the author's code and may raise anything; the steps before it have succeeded all the
                # same. A retry asks it again, because the position was not entered.
                message = shorten(f"the condition of this step raised {format_error(error)}")
                self.fail(leaf, Failure(type(error).__name__, message, shorten(format_traceback(error))))
                return
            if end is not None:
                for skipped in self.plan.leaves[position:end]:
                    self.log_step(skipped, StepStatus.SKIPPED)
                position = end
                continue
            self.change(entered=True)
            if not self.enter(leaf):
                return
            position += 1
        self.change(position=len(self.plan), step=None, status=ProcessStatus.COMPLETED, **_UNTRIED)

    def enter(self, leaf: Leaf) -> bool:
        """Begin the step at ``leaf``, whose conditions agree; whether it is a marker, and so over already."""
        match leaf.step.kind:
            case StepKind.START | StepKind.DONE:
                self.log_step(leaf, StepStatus.COMPLETE if leaf.step.kind is StepKind.DONE else StepStatus.SUCCESS)
                return True
            case StepKind.INPUT:
                self.log_step(leaf, StepStatus.SUSPEND, note=f"waits for input from {leaf.step.assignee}")
                self.change(status=ProcessStatus.SUSPENDED, assignee=leaf.step.assignee)
            case StepKind.AWAIT:
                self.log_step(leaf, StepStatus.AWAITING_CALLBACK)
                self.change(status=ProcessStatus.AWAITING_CALLBACK)
                self.callback = ParkCallback()
            case StepKind.RUN | StepKind.ACTION:
                self.run(leaf)
        return False

    def run(self, leaf: Leaf) -> None:
        """Have the step at ``leaf`` executed."""
        if leaf.step.kind is StepKind.ACTION:
            assert leaf.step.callback is not None  # noqa: S101 - an ACTION leaf always has terms
            waiting = self.plan.leaves[leaf.position + 1]
            timeout = leaf.step.callback.timeout
            self.callback = OpenCallback(waiting.position, waiting.step.name, self.stamp.token, timeout)
        self.change(status=ProcessStatus.RUNNING)
        self.command(leaf)

    def command(self, leaf: Leaf) -> None:
        self.dispatch = Dispatch(leaf.position, self.process.attempt, leaf.queue, leaf.step.name, self.process.lost)

    def resume(self, actor: str, name: str) -> None:
        """Run the present step again, with its conditions decided and its callback token unchanged."""
        leaf = self.plan.locate(self.process)
        self.change(status=ProcessStatus.RUNNING, actor=actor, position=leaf.position)
        self.log_process(name)
        self.command(leaf)

    def fail(self, leaf: Leaf | None, failure: Failure, *, note: str | None = None, ran: bool = False) -> None:
        if leaf is not None:
            self.log_step(leaf, StepStatus.FAILED, failure=failure, note=note, ran=ran)
            if leaf.step.kind is StepKind.ACTION:
                # Whatever the lost job may still answer, the retry will start another one.
                self.callback = CloseCallback("superseded")
        self.change(status=failure.status)
        if leaf is None:
            self.log_process("failed", failure=failure)

    def decision(self) -> Decision:
        if self.process.status is ProcessStatus.INCONSISTENT_DATA:
            self.change(assignee=NOC)
        elif self.process.status is not ProcessStatus.SUSPENDED:
            self.change(assignee=SYSTEM)
        # Each change of status is an entry of its own, so that every entry is exactly one event for the outside.
        last = next((e for e in reversed(self.entries) if e.kind is EntryKind.PROCESS), None)
        shown = last.status if last is not None else self.before.status
        if self.process.status != shown:
            self.log_process(self.process.status.value.replace("_", " "))
        return Decision(self.process, tuple(self.entries), self.dispatch, self.callback, self.retry_in)


def _start(draft: _Draft, event: events.Started) -> None:
    draft.log_process("created", delta=event.state)
    draft.arrive(0)


def _step_succeeded(draft: _Draft, event: events.StepSucceeded) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    draft.log_step(leaf, StepStatus.SUCCESS, delta=event.delta, note=event.note, ran=True)
    draft.arrive(leaf.position + 1)


def _step_failed(draft: _Draft, event: events.StepFailed) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    draft.change(**_UNTRIED | {"failures": draft.process.failures + 1})
    if event.retry_in is None:
        draft.fail(leaf, event.failure, note=event.note, ran=True)
        return
    draft.log_step(leaf, StepStatus.WAITING, failure=event.failure, note=event.note, ran=True)
    draft.change(status=ProcessStatus.WAITING)
    draft.retry_in = event.retry_in


def _attempt_lost(draft: _Draft, event: events.AttemptLost) -> None:
    _fence(draft.process, event.attempt)
    leaf = draft.plan.locate(draft.process)
    # A claim compares the command's position with the process's, so both follow a step that the code has moved.
    draft.change(position=leaf.position)
    verdict = judge(draft.process, event)
    draft.process = verdict.process
    if verdict.failure is not None:
        draft.fail(leaf, verdict.failure, ran=True)
        return
    draft.log_process("given back" if event.loss is Loss.GIVEN_BACK else "attempt lost", note=verdict.note)
    if verdict.pause is None:
        draft.command(leaf)
    else:
        draft.change(status=ProcessStatus.WAITING)
        draft.retry_in = verdict.pause


def _retry(draft: _Draft, event: events.Retried) -> None:
    leaf = draft.plan.locate(draft.process)
    draft.change(actor=event.user, status=ProcessStatus.RUNNING, **_UNTRIED)
    draft.log_process("retried")
    if not draft.process.entered:
        draft.arrive(leaf.position)
        return
    start = draft.plan.leaves[leaf.restart]
    if start is not leaf:
        draft.change(rewinds=draft.process.rewinds + 1)
    draft.change(position=start.position, step=start.step.name)
    # An input step can have failed only because it was missing from the code for a while: it suspends once more.
    if draft.enter(start):
        draft.arrive(start.position + 1)


def _abort(draft: _Draft, event: events.Aborted) -> None:
    draft.change(actor=event.user, status=ProcessStatus.ABORTED)
    try:
        leaf = draft.plan.locate(draft.process)
    except WorkflowChangedError:
        pass  # the code no longer has the step; an operator can abort the process all the same
    else:
        draft.log_step(leaf, StepStatus.ABORT, note=event.reason)
    draft.log_process("aborted", note=event.reason)
    draft.callback = CloseCallback("superseded")


def _patch(draft: _Draft, event: events.Patched) -> None:
    draft.log_process(
        "patched", delta=dict(event.delta), removed=tuple(event.removed), note=event.reason, author=event.user
    )


def _skip(draft: _Draft, event: events.StepSkipped) -> None:
    leaf = draft.plan.locate(draft.process)
    end = draft.plan.skipped_by(leaf)
    draft.change(actor=event.user, status=ProcessStatus.RUNNING)
    for skipped in draft.plan.leaves[leaf.position : end]:
        draft.log_step(skipped, StepStatus.SKIPPED, note=event.reason)
    draft.callback = CloseCallback("superseded")
    draft.arrive(end)


def _fence(process: Process, attempt: int) -> None:
    if attempt != process.attempt:
        raise FencedError(f"attempt {attempt} was overtaken: the process is at attempt {process.attempt}")


def _waiting_leaf(plan: Plan, process: Process, position: int) -> Leaf:
    leaf = plan.locate(process)
    if process.position != position or leaf.step.kind is not StepKind.AWAIT:
        raise IllegalTransitionError("this callback belongs to another step than the one the process waits at")
    return leaf
