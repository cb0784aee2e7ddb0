"""Every transition of a process, one by one: what is logged, what is dispatched, where it stands afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.engine.decide import decide
from orchestrator.engine.events import (
    Aborted,
    AttemptLost,
    CallbackCompleted,
    CallbackFailed,
    CodeChanged,
    Event,
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
from orchestrator.engine.transitions import TRANSITIONS
from orchestrator.errors import IllegalTransitionError
from orchestrator.types import ProcessStatus
from orchestrator.workflow import Step, conditional, done, init
from tests.unit.walk import FAILURE, STAMP, Walk, blank, external, patient, plan_of, question, work

a, b = work("a"), work("b")
UNAVAILABLE = replace(FAILURE, status=ProcessStatus.API_UNAVAILABLE)


def raising() -> bool:
    raise LookupError("no such thing")


broken: Step = conditional(raising)(work("broken"))

Row = tuple[str, Callable[[], Walk], Event, str, list[tuple[str, str]], str | None]

TABLE: list[Row] = [
    # what is tested, a walk, the event, the status after it, the new entries, the step dispatched
    ("start", lambda: Walk(a), Started({}), "running", [("created", "created"), ("running", "running")], "a"),
    (
        "start with a marker",
        lambda: Walk(init, a),
        Started({}),
        "running",
        [("created", "created"), ("Start", "success"), ("running", "running")],
        "a",
    ),
    (
        "start at a question",
        lambda: Walk(question("q")),
        Started({}),
        "suspended",
        [("created", "created"), ("q", "suspend"), ("suspended", "suspended")],
        None,
    ),
    (
        "start of nothing but markers",
        lambda: Walk(init, done),
        Started({}),
        "completed",
        [("created", "created"), ("Start", "success"), ("Done", "complete"), ("completed", "completed")],
        None,
    ),
    (
        "start at a condition that raises",
        lambda: Walk(broken),
        Started({}),
        "failed",
        [("created", "created"), ("broken", "failed"), ("failed", "failed")],
        None,
    ),
    ("success", lambda: Walk(a, b).start().claim(), StepSucceeded(1, {}), "running", [("a", "success")], "b"),
    (
        "success of the last step",
        lambda: Walk(a).start().claim(),
        StepSucceeded(1, {}),
        "completed",
        [("a", "success"), ("completed", "completed")],
        None,
    ),
    (
        "success before the end marker",
        lambda: Walk(a, done).start().claim(),
        StepSucceeded(1, {}),
        "completed",
        [("a", "success"), ("Done", "complete"), ("completed", "completed")],
        None,
    ),
    (
        "success before a question",
        lambda: Walk(a, question("q")).start().claim(),
        StepSucceeded(1, {}),
        "suspended",
        [("a", "success"), ("q", "suspend"), ("suspended", "suspended")],
        None,
    ),
    (
        "success of an action",
        lambda: Walk(external("job")).start().claim(),
        StepSucceeded(1, {}),
        "awaiting_callback",
        [("job: start", "success"), ("job", "awaiting_callback"), ("awaiting callback", "awaiting_callback")],
        None,
    ),
    (
        "failure",
        lambda: Walk(a).start().claim(),
        StepFailed(1, FAILURE),
        "failed",
        [("a", "failed"), ("failed", "failed")],
        None,
    ),
    (
        "failure of a server behind an API",
        lambda: Walk(a).start().claim(),
        StepFailed(1, UNAVAILABLE),
        "api_unavailable",
        [("a", "failed"), ("api unavailable", "api_unavailable")],
        None,
    ),
    (
        "failure that is tried again by itself",
        lambda: Walk(patient("p")).start().claim(),
        StepFailed(1, FAILURE, 4.0),
        "waiting",
        [("p", "waiting"), ("waiting", "waiting")],
        None,
    ),
    ("loss", lambda: Walk(a).start().claim(), AttemptLost(1, "c1"), "running", [("attempt lost", "running")], "a"),
    (
        "giving back",
        lambda: Walk(a).start().claim(),
        AttemptLost(1, "c1", Loss.GIVEN_BACK),
        "running",
        [("given back", "running")],
        "a",
    ),
    (
        "the last loss",
        lambda: Walk(a).start().claim(),
        AttemptLost(1, "c1", Loss.CRASHED, limit=1),
        "failed",
        [("a", "failed"), ("failed", "failed")],
        None,
    ),
    ("no consumer", lambda: Walk(a).start(), NotRun("c1 lacks it"), "running", [("no consumer", "running")], "a"),
    (
        "the delay is over",
        lambda: Walk(patient("p")).start().fail(retry_in=4),
        RetryDue(),
        "running",
        [("due again", "running")],
        "p",
    ),
    (
        "answer",
        lambda: Walk(external("job")).start().succeed(),
        CallbackCompleted(1, {}),
        "running",
        [("job", "success"), ("running", "running")],
        "job: check",
    ),
    (
        "answer that says no",
        lambda: Walk(external("job")).start().succeed(),
        CallbackFailed(1, FAILURE),
        "failed",
        [("job", "failed"), ("failed", "failed")],
        None,
    ),
    (
        "input",
        lambda: Walk(question("q"), a).start(),
        Submitted("bob", {}),
        "running",
        [("q", "success"), ("running", "running")],
        "a",
    ),
    (
        "input of the last step",
        lambda: Walk(question("q")).start(),
        Submitted("bob", {}),
        "completed",
        [("q", "success"), ("completed", "completed")],
        None,
    ),
    (
        "input before another question",
        lambda: Walk(question("q"), question("r")).start(),
        Submitted("bob", {}),
        "suspended",
        [("q", "success"), ("r", "suspend")],
        None,
    ),
    ("retry", lambda: Walk(a).start().fail(), Retried("bob"), "running", [("retried", "running")], "a"),
    (
        "retry while waiting",
        lambda: Walk(patient("p")).start().fail(retry_in=4),
        Retried("bob"),
        "running",
        [("retried", "running")],
        "p",
    ),
    (
        "retry of a condition that raises",
        lambda: Walk(broken).start(),
        Retried("bob"),
        "failed",
        [("retried", "running"), ("broken", "failed"), ("failed", "failed")],
        None,
    ),
    (
        "abort while running",
        lambda: Walk(a).start().claim(),
        Aborted("bob"),
        "aborted",
        [("a", "abort"), ("aborted", "aborted")],
        None,
    ),
    (
        "abort while suspended",
        lambda: Walk(question("q")).start(),
        Aborted("bob"),
        "aborted",
        [("q", "abort"), ("aborted", "aborted")],
        None,
    ),
    (
        "abort of a process whose step is gone from the code",
        lambda: Walk(a).start().change_code(b),
        Aborted("bob"),
        "aborted",
        [("aborted", "aborted")],
        None,
    ),
    (
        "patch of a failed process",
        lambda: Walk(a).start().fail(),
        Patched("bob", "typing error", {"x": 1}),
        "failed",
        [("patched", "failed")],
        None,
    ),
    (
        "patch of a suspended process",
        lambda: Walk(question("q")).start(),
        Patched("bob", "typing error", {"x": 1}),
        "suspended",
        [("patched", "suspended")],
        None,
    ),
    (
        "skip",
        lambda: Walk(a, b).start().fail(),
        StepSkipped("bob", "done by hand"),
        "running",
        [("a", "skipped"), ("running", "running")],
        "b",
    ),
    (
        "skip of the last step",
        lambda: Walk(a).start().fail(),
        StepSkipped("bob", "done by hand"),
        "completed",
        [("a", "skipped"), ("completed", "completed")],
        None,
    ),
    (
        "rewind of a failed process",
        lambda: Walk(a, b).start().succeed().fail(),
        Rewound("bob", "once more", "a", 1, {}),
        "running",
        [("rewound", "running")],
        "a",
    ),
    (
        "rewind to a question",
        lambda: Walk(question("q"), question("r")).start().fill(),
        Rewound("bob", "once more", "q", 1, {}),
        "suspended",
        [("rewound", "running"), ("q", "suspend"), ("suspended", "suspended")],
        None,
    ),
    (
        "another plan while running",
        lambda: Walk(a, b).start().change_code(a, work("new"), b),
        PlanChanged(plan_of(a, b).outline, 2),
        "running",
        [("plan changed", "running")],
        "a",
    ),
    (
        "another plan at rest",
        lambda: Walk(question("q")).start().change_code(question("q"), b),
        PlanChanged(None, 2),
        "suspended",
        [("plan changed", "suspended")],
        None,
    ),
    (
        "the step is gone from the code",
        lambda: Walk(a).start(),
        CodeChanged(FAILURE),
        "failed",
        [("failed", "failed")],
        None,
    ),
]


@pytest.mark.parametrize(
    ("make", "event", "status", "news", "dispatched"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_transition(
    make: Callable[[], Walk], event: Event, status: str, news: list[tuple[str, str]], dispatched: str | None
) -> None:
    walk = make()
    before, entries = walk.process, len(walk.entries)

    decision = walk.apply(event)

    assert walk.status == status
    assert walk.news == news
    assert [entry.sequence for entry in decision.entries] == [before.sequence + 1 + n for n in range(len(news))]
    assert len(walk.entries) == entries + len(news)
    assert (decision.dispatch.step if decision.dispatch else None) == dispatched
    assert walk.process.status in TRANSITIONS[type(event)][before.status]


def test_the_table_covers_every_event_in_some_status() -> None:
    assert {type(event) for _, _, event, _, _, _ in TABLE} == set(TRANSITIONS)


EVENTS: list[Event] = [
    Started({}),
    StepSucceeded(0, {}),
    StepFailed(0, FAILURE),
    AttemptLost(0, "c1"),
    NotRun("c1 lacks it"),
    RetryDue(),
    CallbackCompleted(0, {}),
    CallbackFailed(0, FAILURE),
    Submitted("bob", {}),
    Retried("bob"),
    Aborted("bob"),
    Patched("bob", "r", {}),
    StepSkipped("bob", "r"),
    Rewound("bob", "r", "a", 1, {}),
    PlanChanged(None, 2),
    CodeChanged(FAILURE),
]


REFUSED = [(status, event) for status in ProcessStatus for event in EVENTS if status not in TRANSITIONS[type(event)]]


@pytest.mark.parametrize(
    ("status", "event"), REFUSED, ids=[f"{type(event).__name__} when {status}" for status, event in REFUSED]
)
def test_an_event_is_refused_in_every_status_that_the_table_does_not_name(status: ProcessStatus, event: Event) -> None:
    process = replace(blank(status), step="a")

    with pytest.raises(IllegalTransitionError, match=f"a process that is {status.value} cannot be "):
        decide(plan_of(a), process, event, STAMP)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Submitted("bob", {}), "a process that is completed cannot be given input: it is final"),
        (Retried("bob"), "a process that is completed cannot be retried: it is final"),
        (Aborted("bob"), "a process that is completed cannot be aborted: it is final"),
        (Patched("b", "r", {}), "a process that is completed cannot be patched: it is final"),
        (StepSkipped("bob", "r"), "a process that is completed cannot be made to skip its step: it is final"),
    ],
)
def test_a_refusal_says_why(event: Event, text: str) -> None:
    walk = Walk(a).start().succeed()

    with pytest.raises(IllegalTransitionError) as caught:
        walk.apply(event)

    assert str(caught.value) == text
