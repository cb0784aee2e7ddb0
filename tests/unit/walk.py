"""A process taken through its plan by hand, as the servers would take it, for tests of the core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from orchestrator.engine.decide import decide
from orchestrator.engine.decision import Decision, Entry
from orchestrator.engine.events import Event, Failure, PlanChanged, Stamp, Started, StepFailed, StepSucceeded, Submitted
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Block, Step, StepList, Workflow, callback_step, inputstep, retrystep, step

PROCESS_ID = UUID("6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d")
STAMP = Stamp(lambda: "the-token")
FAILURE = Failure("ValueError", "the node does not answer")


def nothing() -> None:
    """Do nothing: the core never calls a step's function."""


def work(name: str, *, queue: str | None = None) -> Step:
    """Return a step that runs."""
    return step(name, queue=queue)(nothing)


def patient(name: str) -> Step:
    """Return a step that is tried again by itself."""
    return retrystep(name)(nothing)


def question(name: str) -> Step:
    """Return a step that suspends."""
    return inputstep(name)(nothing)


def external(name: str, timeout: float | None = None) -> Block:
    """Return a callback step of the parts ``<name>: start``, ``<name>`` and ``<name>: check``."""
    return callback_step(name, work(f"{name}: start"), work(f"{name}: check"), timeout=timeout)


def plan_of(*items: Step | Block | StepList, is_task: bool = False) -> Plan:
    """Return a plan of these steps."""
    steps = StepList()
    for item in items:
        steps >>= item
    return Plan.of(Workflow("flow", "for tests", steps, is_task=is_task))


def blank(status: ProcessStatus = ProcessStatus.CREATED) -> Process:
    """Return a process as it is before its first event."""
    return Process(PROCESS_ID, "flow", status, 0, None, 0, 0, {}, "ann", "ann")


class Walk:
    """One process on its way. ``apply`` keeps what was decided; the rest are the events that happen most."""

    def __init__(self, *items: Step | Block | StepList, plan: Plan | None = None) -> None:
        self.plan = plan or plan_of(*items)
        self.process = blank()
        self.entries: list[Entry] = []
        self.decision = Decision(self.process, ())
        self.before: Plan | None = None

    def apply(self, event: Event, stamp: Stamp = STAMP) -> Decision:
        self.decision = decide(self.plan, self.process, event, stamp)
        self.process = self.decision.process
        self.entries.extend(self.decision.entries)
        return self.decision

    def start(self, **state: Any) -> Walk:
        self.apply(Started(state))
        return self

    def claim(self) -> Walk:
        """Do what the database does when a consumer takes the command."""
        self.process = replace(self.process, attempt=self.process.attempt + 1)
        return self

    def succeed(self, **delta: Any) -> Walk:
        self.claim()
        self.apply(StepSucceeded(self.process.attempt, delta))
        return self

    def fill(self, **delta: Any) -> Walk:
        self.apply(Submitted("bob", delta))
        return self

    def fail(self, retry_in: float | None = None, failure: Failure = FAILURE) -> Walk:
        self.claim()
        self.apply(StepFailed(self.process.attempt, failure, retry_in))
        return self

    def change_code(self, *items: Step | Block | StepList) -> Walk:
        """From here on the workflow's code is another."""
        self.before, self.plan = self.plan, plan_of(*items)
        return self

    def move(self) -> Walk:
        """Move the process to the plan of the changed code, as a program that has the registered plan does."""
        self.apply(PlanChanged(None if self.before is None else self.before.outline, 2))
        return self

    @property
    def status(self) -> str:
        return self.process.status.value

    @property
    def log(self) -> list[tuple[str, str]]:
        """The log's names and statuses."""
        return [(entry.name, entry.status.value) for entry in self.entries]

    @property
    def news(self) -> list[tuple[str, str]]:
        """The names and statuses of the entries of the last decision."""
        return [(entry.name, entry.status.value) for entry in self.decision.entries]


def fold(entries: list[Entry]) -> dict[str, Any]:
    """Return the state that the log tells of."""
    state: dict[str, Any] = {}
    for entry in entries:
        state.update(entry.delta)
        for key in entry.removed:
            state.pop(key, None)
    return state


Predicate = Callable[..., bool]
