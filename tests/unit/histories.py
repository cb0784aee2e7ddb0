"""Random plans and random histories, for the property tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count, product
from typing import Any

from hypothesis import strategies as st

from orchestrator.engine.decision import Entry
from orchestrator.engine.events import (
    Aborted,
    AttemptLost,
    CallbackCompleted,
    CallbackFailed,
    CodeChanged,
    Event,
    Failure,
    Loss,
    NotRun,
    Patched,
    PlanChanged,
    Retried,
    RetryDue,
    Rewound,
    Started,
    StepFailed,
    StepSkipped,
    StepSucceeded,
    Submitted,
)
from orchestrator.engine.plan import Plan
from orchestrator.engine.process import Process
from orchestrator.engine.rewind import PastEntry, plan_rewind
from orchestrator.engine.transitions import TRANSITIONS
from orchestrator.errors import ConflictError
from orchestrator.types import ProcessStatus
from orchestrator.workflow import (
    Block,
    Step,
    StepKind,
    StepList,
    callback_step,
    conditional,
    inputstep,
    step_group,
)
from tests.unit.walk import nothing, patient, plan_of, work

KEYS = ("k0", "k1", "k2")
"""What conditions look at."""


@dataclass(frozen=True)
class Reads:
    """A condition over the state; it raises when the key is missing."""

    key: str

    def __call__(self, state: dict[str, Any]) -> bool:
        return bool(state[self.key])


@dataclass(frozen=True)
class Environment:
    """A condition over nothing."""

    answer: bool

    def __call__(self) -> bool:
        return self.answer


def broken() -> bool:
    """Raise, as a condition that can never be decided."""
    raise RuntimeError("broken")


conditions: st.SearchStrategy[Callable[..., bool]] = st.one_of(
    st.sampled_from(KEYS).map(Reads), st.booleans().map(Environment), st.just(broken)
)

Recipe = tuple[Any, ...]
"""A step or block without its name; names are given when the plan is made, because they must differ."""

_recipes: st.SearchStrategy[Recipe] = st.recursive(
    st.sampled_from(
        [("work",), ("patient",), ("patient",), ("question",), ("external", False), ("external", True), ("marker",)]
    ),
    lambda inner: st.one_of(
        st.tuples(st.just("if"), conditions, inner),
        st.tuples(st.just("group"), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


def _make(recipe: Recipe, numbers: Iterator[int]) -> Step | Block:
    name = f"s{next(numbers)}"
    match recipe:
        case ("work",):
            return work(name)
        case ("patient",):
            return patient(name)
        case ("question",):
            return inputstep(name)(nothing)
        case ("external", is_patient):
            make = patient if is_patient else work
            return callback_step(name, make(f"{name}: start"), make(f"{name}: check"), result_key="k1")
        case ("marker",):
            return Step(name, StepKind.START)
        case ("if", condition, inner):
            return conditional(condition)(_make(inner, numbers))
        case ("group", inner):
            return step_group(name, StepList([_make(item, numbers) for item in inner]))
    raise AssertionError(recipe)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Return a plan of up to five items, nested or not."""
    numbers = count()
    return plan_of(*[_make(recipe, numbers) for recipe in draw(st.lists(_recipes, min_size=1, max_size=5))])


STATES = [
    dict(zip(keys, values, strict=True))
    for size in range(4)
    for keys in combinations((*KEYS, "other"), size)
    for values in product((False, True), repeat=size)
]

states: st.SearchStrategy[dict[str, Any]] = st.sampled_from(STATES).map(dict)
"""Any of them by one choice: to have Hypothesis put each together took a third of the time of the tests."""

FAILURES = [
    Failure("ValueError", "no", status=status)
    for status in (ProcessStatus.FAILED, ProcessStatus.API_UNAVAILABLE, ProcessStatus.INCONSISTENT_DATA)
]


@dataclass(frozen=True)
class Happening:
    """One thing that happens, whatever the process then is: mostly one that fits its status, with right numbers.

    Args:
        choice: which event, out of those that fit, or of all.
        fits: whether it fits the status.
        shift: added to the attempt or position, so that some are stale or from nowhere.
        claimed: whether a consumer takes the command before.
        delta: what a step, a form or a patch gives.
        number: decides the rest.
    """

    choice: int
    fits: bool
    shift: int
    claimed: bool
    delta: dict[str, Any]
    number: int

    def event(self, plan: Plan, process: Process, entries: Sequence[Entry]) -> Event:
        """Return the event for this process."""
        kinds = [kind for kind in TRANSITIONS if not self.fits or process.status in TRANSITIONS[kind]]
        kind = (kinds or list(TRANSITIONS))[self.choice % (len(kinds) or len(TRANSITIONS))]
        if kind is Aborted and self.number % 4:
            kind = StepSucceeded  # fewer ends, longer histories
        if kind is Rewound:
            return self.rewind(plan, process, entries)
        attempt, position = process.attempt + self.shift, process.position + self.shift
        events: dict[type, Event] = {
            Started: Started(self.delta),
            StepSucceeded: StepSucceeded(attempt, self.delta),
            StepFailed: StepFailed(attempt, FAILURES[self.number % 3], None if self.number % 2 else 3.0),
            AttemptLost: AttemptLost(attempt, "c1", [*Loss][self.number % len(Loss)], limit=1 + self.number % 3),
            NotRun: NotRun("c1 does not know it"),
            RetryDue: RetryDue(),
            CallbackCompleted: CallbackCompleted(position, self.number % 2 == 0),
            CallbackFailed: CallbackFailed(position, FAILURES[0]),
            Submitted: Submitted("bob", self.delta),
            Retried: Retried("bob"),
            Aborted: Aborted("bob"),
            Patched: Patched("bob", "why not", self.delta, KEYS[: self.number % 3]),
            StepSkipped: StepSkipped("bob", "done by hand"),
            PlanChanged: PlanChanged(None, 2),
            CodeChanged: CodeChanged(FAILURES[0]),
        }
        return events[kind]

    def rewind(self, plan: Plan, process: Process, entries: Sequence[Entry]) -> Event:
        """Return a rewind to any step, or a retry when it cannot go back to that one."""
        step = plan.leaves[self.number % len(plan)].step.name
        try:
            return plan_rewind(plan, process, [past(entry) for entry in entries], step, "bob", "once more")
        except ConflictError:
            return Retried("bob")


def past(entry: Entry) -> PastEntry:
    """Return a log entry as it is read back."""
    return PastEntry(
        entry.sequence, entry.kind.value, entry.name, entry.status.value, entry.note, entry.delta, entry.removed
    )


CIRCUMSTANCES = list(product([True] * 7 + [False], [0] * 9 + [-1, -2, 1], (False, True)))
"""Whether it fits, its shift, and whether the command was claimed before: by one choice, because each costs time."""

happenings: st.SearchStrategy[Happening] = st.tuples(
    st.integers(0, 14), st.sampled_from(CIRCUMSTANCES), states, st.integers(0, 11)
).map(lambda drawn: Happening(drawn[0], *drawn[1], *drawn[2:]))

histories: st.SearchStrategy[list[Happening]] = st.lists(
    happenings,
    min_size=12,  # or Hypothesis makes lists of five on average, which get nowhere
    max_size=40,
)


def one_of_each(process: Process) -> list[Event]:
    """Every kind of event, each as fitting as it can be."""
    return [
        Started({}),
        StepSucceeded(process.attempt, {}),
        StepFailed(process.attempt, FAILURES[0]),
        AttemptLost(process.attempt, "c1"),
        NotRun("c1 does not know it"),
        RetryDue(),
        CallbackCompleted(process.position, {}),
        CallbackFailed(process.position, FAILURES[0]),
        Submitted("bob", {}),
        Retried("bob"),
        Aborted("bob"),
        Patched("bob", "why not", {}),
        StepSkipped("bob", "done by hand"),
        Rewound("bob", "once more", process.step or "", 1, {}),
        PlanChanged(None, 2),
        CodeChanged(FAILURES[0]),
    ]
