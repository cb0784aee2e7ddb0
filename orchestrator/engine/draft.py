"""Build a decision step by step: the next process, its log entries and what must be done."""

from __future__ import annotations

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
from orchestrator.engine.events import Failure, Stamp
from orchestrator.engine.plan import Leaf, Plan
from orchestrator.engine.process import SYSTEM, Process, open_copy
from orchestrator.errors import UnreadableStateError
from orchestrator.text import format_error, format_traceback, shorten
from orchestrator.types import ProcessStatus, State, StepStatus
from orchestrator.workflow import StepKind

UNTRIED = {"failures": 0, "lost": 0, "interruptions": 0, "crashes": 0}
"""The counters of a step that has not been tried yet."""

NOC = "NOC"
"""The assignee of a task that has found a difference between a subscription and the network."""


class Draft:
    """A decision under construction. It lives for one call of :func:`orchestrator.engine.decide.decide`."""

    def __init__(self, plan: Plan, process: Process, stamp: Stamp) -> None:
        self.plan, self.before, self.process, self.stamp = plan, process, open_copy(process), stamp
        self.entries: list[Entry] = []
        self.dispatch: Dispatch | None = None
        self.callback: CallbackChange | None = None
        self.retry_in: float | None = None

    def change(self, **changes: object) -> None:
        """Change the process."""
        process = self.process
        for name, value in changes.items():
            setattr(process, name, value)

    def log(self, entry: Entry) -> None:
        before = self.process
        state = {**before.state, **entry.delta}
        for key in entry.removed:
            state.pop(key, None)
        unreadable = before.unreadable
        if unreadable:
            gone = {*entry.delta, *entry.removed}
            unreadable = {key: why for key, why in unreadable.items() if key not in gone}
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
            self.change(position=position, step=leaf.step.name)
            self.forget_tries()
            try:
                self.process.require_readable()
                end = leaf.find_refusal(self.process.state)
            except UnreadableStateError as error:
                self.change(entered=False)
                self.fail(leaf, Failure(type(error).__name__, str(error)))
                return
            except (Exception, SystemExit) as error:
                # The predicate is user code and may raise anything; the steps before it have succeeded all the same. A
                # retry evaluates it again, because the position was not entered.
                message = shorten(f"the condition of this step raised {format_error(error)}")
                self.change(entered=False)
                self.fail(leaf, Failure(type(error).__name__, message, shorten(format_traceback(error))))
                return
            self.change(entered=end is None)
            if end is not None:
                for skipped in self.plan.leaves[position:end]:
                    self.log_step(skipped, StepStatus.SKIPPED)
                position = end
                continue
            if not self.enter(leaf):
                return
            position += 1
        self.change(position=len(self.plan), step=None, status=ProcessStatus.COMPLETED)
        self.forget_tries()

    def forget_tries(self) -> None:
        """Reset the counters of failed and lost tries, because a new step begins."""
        process = self.process
        if process.failures or process.lost or process.interruptions or process.crashes:
            self.change(**UNTRIED)

    def enter(self, leaf: Leaf) -> bool:
        """Begin the step at ``leaf``, whose conditions hold; return whether it is a marker, and so complete already."""
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
        """Request the execution of the step at ``leaf``."""
        if leaf.step.kind is StepKind.ACTION:
            assert leaf.step.callback is not None  # noqa: S101 - an ACTION leaf always has terms
            waiting = self.plan.leaves[leaf.position + 1]
            timeout = leaf.step.callback.timeout
            self.callback = OpenCallback(waiting.position, waiting.step.name, self.stamp.make_token(), timeout)
        if self.process.status is not ProcessStatus.RUNNING:
            self.change(status=ProcessStatus.RUNNING)
        self.command(leaf)

    def command(self, leaf: Leaf) -> None:
        self.dispatch = Dispatch(leaf.position, self.process.attempt, leaf.queue, leaf.step.name, self.process.lost)

    def resume(self, actor: str, name: str) -> None:
        """Run the present step again, without evaluating its conditions anew and with the same callback token."""
        leaf = self.plan.locate(self.process)
        self.change(status=ProcessStatus.RUNNING, actor=actor, position=leaf.position)
        self.log_process(name)
        self.command(leaf)

    def fail(self, leaf: Leaf | None, failure: Failure, *, note: str | None = None, ran: bool = False) -> None:
        if leaf is not None:
            self.log_step(leaf, StepStatus.FAILED, failure=failure, note=note, ran=ran)
            if leaf.step.kind is StepKind.ACTION:
                # A retry starts a new external job, so a late answer of the present one must not count.
                self.callback = CloseCallback("superseded")
        self.change(status=failure.status)
        if leaf is None:
            self.log_process("failed", failure=failure)

    def decision(self) -> Decision:
        if self.process.status is ProcessStatus.INCONSISTENT_DATA:
            self.change(assignee=NOC)
        elif self.process.status is not ProcessStatus.SUSPENDED and self.process.assignee != SYSTEM:
            self.change(assignee=SYSTEM)
        # Each change of status is a log entry of its own, because every entry is exactly one event for other systems.
        shown: StepStatus | ProcessStatus = self.before.status
        for entry in self.entries:
            if entry.kind is EntryKind.PROCESS:
                shown = entry.status
        if self.process.status != shown:
            self.log_process(self.process.status.value.replace("_", " "))
        self.process.close()
        return Decision(self.process, tuple(self.entries), self.dispatch, self.callback, self.retry_in)
