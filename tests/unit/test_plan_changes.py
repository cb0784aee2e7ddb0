"""A process moves to another plan of its workflow: what the log says, and that no step is skipped without a word."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.decide import decide
from orchestrator.engine.decision import Entry
from orchestrator.engine.events import (
    Aborted,
    CallbackCompleted,
    Event,
    Patched,
    PlanChanged,
    Retried,
    RetryDue,
    StepFailed,
    StepSkipped,
    StepSucceeded,
    Submitted,
)
from orchestrator.engine.plan import Outline, Plan
from orchestrator.errors import PlanMismatchError, WorkflowChangedError
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Block, Step, conditional, init
from tests.unit.walk import FAILURE, STAMP, Walk, external, patient, plan_of, question, work

a, b, c, d, new = (work(name) for name in ("a", "b", "c", "d", "new"))


def note_of(*code: Step | Block, had: tuple[Step | Block, ...] = (a, b, c), done: int = 1) -> str:
    walk = Walk(*had).start()
    for _ in range(done):
        walk.succeed()
    return str(walk.change_code(*code).move().entries[-1].note)


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ((a, b, new, c), "+ new, runs"),
        ((a, new, b, c), "+ new, does not run in this process: it lies before its place"),
        ((a, b), "- c, does not run any more"),
        ((b, c), "- a, had its turn"),
        ((b, a, c), "a moved behind its place: comes again"),
        ((a, c, b), "c moved before its place: does not run in this process"),
        ((a, b, work("c", queue="slow")), "c: queue"),
        ((a, work("b", queue="slow"), conditional(bool)(c)), "b: queue; c: conditions"),
        ((work("a", queue="slow"), b, c), "no step that comes is different"),
        ((a, b, c, d), "+ d, runs"),
        (
            (new, a, b, d),
            "+ new, does not run in this process: it lies before its place; + d, runs; - c, does not run any more",
        ),
    ],
)
def test_a_move_names_what_it_means_for_the_process(code: tuple[Step, ...], note: str) -> None:
    assert note_of(*code) == f"plan 2: {note}"


def test_another_order_of_the_steps_that_come_is_named() -> None:
    assert note_of(a, b, d, c, had=(a, b, c, d)) == "plan 2: the order of the steps that come"


def test_of_a_plan_that_nobody_has_kept_the_steps_are_not_known() -> None:
    walk = Walk(a, b).start().change_code(a, new, b)

    walk.apply(PlanChanged(None, 3))

    assert walk.entries[-1].note == "plan 3: the steps of the plan that it had are not known"


def test_a_move_is_an_entry_of_the_engine_and_changes_nothing_but_the_place() -> None:
    walk = Walk(a, b).start().succeed(x=1)
    before = walk.process

    walk.change_code(new, a, b).move()

    assert walk.entries[-1].author == "SYSTEM"
    plan = walk.plan.fingerprint
    assert walk.process == replace(before, plan=plan, position=2, sequence=before.sequence + 1)
    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.position == 2


EVENTS: list[tuple[Walk, Event]] = [
    (Walk(a).start().claim(), StepSucceeded(1, {})),
    (Walk(a).start().claim(), StepFailed(1, FAILURE)),
    (Walk(patient("p")).start().fail(retry_in=1), RetryDue()),
    (Walk(question("q")).start(), Submitted("ann", {})),
    (Walk(external("j")).start().succeed(), CallbackCompleted(1, {})),
    (Walk(a).start().fail(), Retried("ann")),
    (Walk(a).start().fail(), StepSkipped("ann", "by hand")),
]


@pytest.mark.parametrize(("walk", "event"), EVENTS, ids=[type(event).__name__ for _, event in EVENTS])
def test_a_program_with_another_plan_decides_nothing(walk: Walk, event: Event) -> None:
    other = plan_of(*walk.plan.workflow.steps, new)

    with pytest.raises(PlanMismatchError, match=rf"has the plan {walk.plan.fingerprint} .* has {other.fingerprint}"):
        decide(other, walk.process, event, STAMP)


@pytest.mark.parametrize("event", [Aborted("ann"), Patched("ann", "typing error", {"x": 1})])
def test_every_program_can_abort_and_patch_and_leaves_the_plan_as_it_is(event: Event) -> None:
    walk = Walk(a, b).start().fail()
    had = walk.process.plan

    walk.change_code(new, b).apply(event)

    assert walk.process.plan == had


def test_a_row_without_a_plan_is_taken_over_without_an_entry() -> None:
    walk = Walk(a, b).start().claim()
    walk.process = replace(walk.process, plan=None)

    walk.change_code(a, new, b).apply(StepSucceeded(1, {}))

    assert walk.process.plan == walk.plan.fingerprint
    assert walk.news == [("a", "success")]


def test_a_process_begins_with_the_plan_of_the_program_that_starts_it() -> None:
    assert Walk(init, a).start().process.plan == plan_of(init, a).fingerprint


@pytest.mark.parametrize(
    "walk",
    [
        Walk(work("x")).start().change_code(question("x")),
        Walk(question("x")).start().change_code(work("x")),
        Walk(external("x")).start().succeed().change_code(work("x")),
        Walk(external("y")).start().change_code(work("y: start")),
        Walk(work("x")).start().change_code(new),
    ],
)
def test_a_process_does_not_move_to_a_plan_in_which_its_step_is_gone_or_of_another_kind(walk: Walk) -> None:
    before = walk.process

    with pytest.raises(WorkflowChangedError):
        walk.move()

    assert walk.process == before


def test_a_failed_process_begins_a_step_that_has_become_another() -> None:
    walk = Walk(work("x")).start().fail().change_code(question("x")).move()

    walk.apply(Retried("ann"))

    assert walk.status == "suspended"


NAMES = "abcdefgh"
KINDS = [work, patient, question]
Code = tuple[str, ...]


def make(code: Code) -> Plan:
    return plan_of(*(KINDS[NAMES.index(name) % len(KINDS)](name) for name in code))


def edit(code: Code, chance: random.Random) -> Code:
    """Insert, remove or move a step."""
    steps = list(code)
    absent = [name for name in NAMES if name not in steps]
    match chance.choice(["insert", "insert", "remove", "move"]):
        case "insert" if absent:
            steps.insert(chance.randint(0, len(steps)), chance.choice(absent))
        case "remove" if len(steps) > 1:
            steps.remove(chance.choice(steps))
        case _:
            steps.insert(chance.randint(0, len(steps) - 1), steps.pop(chance.randrange(len(steps))))
    return tuple(steps)


@dataclass
class Deployment:
    """Programs of several versions and one process that they take on by turns; the registered version changes as it runs."""

    chance: random.Random
    versions: list[Plan]
    registered: int = 0
    walk: Walk = field(init=False)
    accounted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.walk = Walk(plan=self.versions[0]).start()
        self.check()

    def outline(self, fingerprint: str | None) -> Outline:
        return next(plan.outline for plan in self.versions if plan.fingerprint == fingerprint)

    def go(self) -> None:
        """Let a program of any version do what is next; it is refused, or moves the process, if it has another plan."""
        version = self.chance.randrange(len(self.versions))
        process, plan = self.walk.process, self.versions[version]
        self.walk.plan = plan
        if process.status is ProcessStatus.RUNNING and process.plan == plan.fingerprint:
            self.walk.claim()
        event = self.find_event()
        if process.plan != plan.fingerprint:
            with pytest.raises(PlanMismatchError):
                decide(plan, self.walk.process, event, STAMP)
            if version != self.registered:
                return
            try:
                self.walk.apply(PlanChanged(self.outline(process.plan), version + 1))
            except WorkflowChangedError:
                # Its step is gone: an operator or a newer version must help.
                self.registered = self.chance.randrange(len(self.versions))
                return
            self.check_move(self.outline(process.plan))
            self.check()
            if process.status is ProcessStatus.RUNNING:
                return
        self.walk.apply(event)
        self.check()

    def find_event(self) -> Event:
        process = self.walk.process
        if process.status is ProcessStatus.RUNNING:
            fails = self.chance.random() < 0.3
            return (
                StepFailed(process.attempt, FAILURE, self.chance.choice([None, 1.0]))
                if fails
                else StepSucceeded(process.attempt, {})
            )
        events: dict[ProcessStatus, Event] = {
            ProcessStatus.WAITING: RetryDue(),
            ProcessStatus.SUSPENDED: Submitted("ann", {}),
        }
        return events.get(process.status, Retried("ann"))

    def check_move(self, before: Outline) -> None:
        """Every step that was to come comes, or the log says that it does not."""
        names = [str(one["name"]) for one in before]
        place = self.walk.process.position
        comes = [leaf.step.name for leaf in self.walk.plan.leaves[place:]]
        assert self.walk.process.step is not None
        for name in names[names.index(self.walk.process.step) :]:
            assert name in comes or name in named(self.walk.entries[-1:])

    def check(self) -> None:
        """Every step before the place of the process in its plan has a row in the log that is its own, or names it."""
        self.accounted |= {entry.name for entry in self.walk.entries if entry.position is not None} | named(
            self.walk.entries
        )
        process = self.walk.process
        plan = next(plan for plan in self.versions if plan.fingerprint == process.plan)
        passed = {leaf.step.name for leaf in plan.leaves[: process.position]}
        assert passed <= self.accounted
        self.walk.plan = plan


def named(entries: list[Entry]) -> set[str]:
    """Return the steps of which the entries about moves say that they do not run, or had their turn."""
    notes = "; ".join(entry.note or "" for entry in entries if entry.name == "plan changed")
    return set(re.findall(r"(\w+)(?:,| moved before its place:) does not run", notes))


@settings(max_examples=200)
@given(st.randoms(use_true_random=False))
def test_no_step_of_the_plan_that_a_process_has_is_skipped_without_a_row_in_the_log(chance: random.Random) -> None:
    code = tuple(NAMES[:4])
    deployment = Deployment(chance, [make(code)])
    for _ in range(60):
        if chance.random() < 0.15:
            code = edit(code, chance)
            plan = make(code)
            known = [one.fingerprint for one in deployment.versions]
            if plan.fingerprint not in known:
                deployment.versions.append(plan)
                deployment.registered = len(deployment.versions) - 1
        if chance.random() < 0.05:
            deployment.registered = chance.randrange(len(deployment.versions))
        deployment.go()
        if deployment.walk.process.status.is_final:
            break
