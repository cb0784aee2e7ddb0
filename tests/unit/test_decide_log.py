"""What a transition leaves behind: fences, log entries, authors, state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.engine.decision import Decision, Dispatch, Entry, EntryKind
from orchestrator.engine.events import (
    Aborted,
    AttemptLost,
    CodeChanged,
    Event,
    Failure,
    Patched,
    Retried,
    StepFailed,
    StepSkipped,
    StepSucceeded,
    Submitted,
)
from orchestrator.errors import FencedError, WorkflowChangedError
from orchestrator.types import StepStatus
from orchestrator.workflow import inputstep
from tests.unit.walk import FAILURE, Walk, nothing, question, work

a, b = work("a"), work("b")


@pytest.mark.parametrize("event", [StepSucceeded(1, {"x": 1}), StepFailed(1, FAILURE), AttemptLost(1, "c1")])
def test_an_overtaken_attempt_is_fenced(event: Event) -> None:
    """B4: whatever comes from an attempt that was taken over changes nothing."""
    walk = Walk(a).start().claim().claim()

    with pytest.raises(FencedError, match="attempt 1 was overtaken: the process is at attempt 2"):
        walk.apply(event)


def test_a_dispatch_names_position_attempt_queue_and_step() -> None:
    walk = Walk(a, work("b", queue="ims")).start().succeed()

    assert walk.decision.dispatch == Dispatch(position=1, attempt=1, queue="ims", step="b")


def test_an_entry_of_an_attempt_tells_all_about_it() -> None:
    """B1."""
    walk = Walk(a, b).start().claim()

    walk.apply(StepSucceeded(1, {"vlan": 142}, note="the state has 70000 bytes"))

    assert walk.decision == Decision(
        process=walk.process,
        entries=(
            Entry(
                sequence=3,
                kind=EntryKind.STEP,
                name="a",
                status=StepStatus.SUCCESS,
                attempt=1,
                author="ann",
                position=0,
                delta={"vlan": 142},
                note="the state has 70000 bytes",
                ran=True,
            ),
        ),
        dispatch=Dispatch(1, 1, "default", "b"),
    )


def test_a_failure_keeps_its_reason_and_leaves_the_state_as_it_was() -> None:
    """B5, B7."""
    walk = Walk(a, b).start(x=1).succeed(x=2).fail()

    failed = walk.entries[-2]
    assert (failed.failure, failed.delta, failed.ran) == (FAILURE, {}, True)
    assert walk.process.state == {"x": 2}


def test_every_attempt_stays_in_the_log() -> None:
    """B7."""
    walk = Walk(a).start()
    for _ in range(3):
        walk.fail().apply(Retried("bob"))
    walk.succeed()

    attempts = [(e.attempt, e.status.value) for e in walk.entries if e.name == "a"]
    assert attempts == [(1, "failed"), (2, "failed"), (3, "failed"), (4, "success")]


def test_who_started_stays_and_who_acts_changes() -> None:
    """B1: the author of a step is who resumed or retried the process last."""
    walk = Walk(question("q"), a, b).start()
    walk.apply(Submitted("bob", {}))
    walk.fail()
    walk.apply(Retried("cleo"))
    walk.succeed()

    assert (walk.process.started_by, walk.process.actor) == ("ann", "cleo")
    authors = {entry.name: entry.author for entry in walk.entries if entry.status == "success"}
    assert authors == {"q": "bob", "a": "cleo"}


def test_the_author_of_an_abort_is_logged_with_the_reason() -> None:
    walk = Walk(a).start()

    walk.apply(Aborted("bob", "the customer has left"))

    assert [(entry.author, entry.note) for entry in walk.decision.entries] == [("bob", "the customer has left")] * 2
    assert walk.process.actor == "bob"


def test_a_patch_is_a_row_of_its_own_and_does_not_change_who_acts() -> None:
    """B11."""
    walk = Walk(a).start(x=1, y=2).fail()

    walk.apply(Patched("bob", "typing error", {"x": 5}, ("y",)))

    entry = walk.entries[-1]
    assert (entry.author, entry.note, entry.delta, entry.removed) == ("bob", "typing error", {"x": 5}, ("y",))
    assert walk.process.state == {"x": 5}
    assert walk.process.actor == "ann"


def test_a_skip_is_logged_with_its_reason_and_author() -> None:
    """B11."""
    walk = Walk(a, b).start().fail()

    walk.apply(StepSkipped("bob", "done by hand"))

    entry = walk.decision.entries[0]
    assert (entry.author, entry.note, entry.status.value) == ("bob", "done by hand", "skipped")


def test_a_question_names_whom_it_asks() -> None:
    """B34."""
    walk = Walk(inputstep("q", assignee="NOC")(nothing)).start()

    assert walk.entries[1].note == "waits for input from NOC"


def test_input_is_merged_over_the_state() -> None:
    """B34."""
    walk = Walk(question("q"), a).start(x=1, y=2)

    walk.apply(Submitted("bob", {"y": 3}))

    assert walk.process.state == {"x": 1, "y": 3}


@pytest.mark.parametrize("event", [StepSucceeded(1, {}), StepFailed(1, FAILURE), AttemptLost(1, "c1")])
def test_an_outcome_of_a_step_that_the_code_no_longer_has_is_an_error_of_its_own(event: Event) -> None:
    """In the row of an engine that stored no plans; another plan would be noticed first."""
    walk = Walk(a).start().claim().change_code(b)
    walk.process = replace(walk.process, plan=None)

    with pytest.raises(WorkflowChangedError):
        walk.apply(event)


def test_a_process_that_failed_because_its_step_was_gone_goes_on_when_it_is_back() -> None:
    walk = Walk(a).start().change_code(b)
    walk.apply(CodeChanged(Failure("WorkflowChangedError", "the step is gone")))
    assert walk.entries[-1].failure is not None

    walk.change_code(a).apply(Retried("bob"))

    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.step == "a"
