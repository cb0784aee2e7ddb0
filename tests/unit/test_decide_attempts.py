"""Counting: tries, lost consumers, delays, and what resets them."""

from __future__ import annotations

import pytest

from orchestrator.engine.events import AttemptLost, CodeChanged, Loss, Retried, RetryDue, StepSkipped
from tests.unit.walk import FAILURE, Walk, external, patient, question, work

a, b, new = work("a"), work("b"), work("new")


def lose(walk: Walk, loss: Loss = Loss.SILENT, because: str = "is presumed dead", limit: int = 5) -> None:
    walk.claim()
    walk.apply(AttemptLost(walk.process.attempt, "consumer-1", loss, because, limit))


def test_failures_count_the_tries_of_the_present_step() -> None:
    """B33."""
    walk = Walk(patient("p"), a).start()
    for expected in (1, 2, 3):
        walk.fail(retry_in=1)
        assert walk.process.failures == expected
        walk.apply(RetryDue())

    walk.succeed()
    assert walk.process.failures == 0


def test_the_delay_travels_with_the_decision() -> None:
    """B33."""
    walk = Walk(patient("p")).start().fail(retry_in=7.5)

    assert walk.decision.retry_in == 7.5
    assert walk.entries[-2].failure == FAILURE


def test_a_retry_by_hand_starts_to_count_anew() -> None:
    """B33: also by hand at once."""
    walk = Walk(patient("p")).start().fail(retry_in=1)

    walk.apply(Retried("bob"))

    assert (walk.process.failures, walk.process.lost) == (0, 0)


def test_a_step_that_brings_down_its_child_process_alone_again_and_again_is_failed() -> None:
    """Issue 9, 6: only the death of a process that ran it alone counts."""
    walk = Walk(a).start()
    pauses = []
    for _ in range(4):
        lose(walk, Loss.CRASHED, "lost the child process that ran it alone: it was killed by SIGKILL")
        pauses.append(walk.decision.retry_in)
        assert walk.process.lost, "it is run apart again"
        if walk.status == "waiting":
            walk.apply(RetryDue())

    lose(walk, Loss.CRASHED, "lost the child process that ran it alone: it was killed by SIGKILL")

    assert pauses == [None, 1, 2, 4]
    assert walk.status == "failed"
    failure = walk.entries[-2].failure
    assert failure is not None
    assert failure.type == "ConsumerLostError"
    assert failure.message == (
        "attempt 5 was lost: the consumer consumer-1 lost the child process that ran it alone: it was killed by SIGKILL;"
        " this step has now brought down its consumer 5 times in a row and is not run again"
    )


def test_a_step_whose_consumers_fall_silent_is_a_suspect_and_is_never_failed_for_it() -> None:
    """Issue 9, 6: a frozen machine, kill -9 by an operator, or a step that takes the whole machine down."""
    walk = Walk(a).start()
    pauses = []
    for _ in range(30):
        lose(walk, Loss.SILENT, limit=1)
        pauses.append(walk.decision.retry_in)
        if walk.status == "waiting":
            walk.apply(RetryDue())

    assert pauses[:5] == [None, 1, 2, 4, 8]
    assert pauses[-1] == 600
    assert walk.process.crashes == 0
    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.lost == walk.process.lost == 30


def test_a_step_that_shared_a_child_process_that_died_is_a_suspect_and_runs_again_at_once() -> None:
    walk = Walk(a).start()
    for _ in range(9):
        lose(walk, Loss.SHARED, limit=1)

    assert (walk.status, walk.process.lost, walk.process.crashes) == ("running", 1, 0)
    assert walk.decision.retry_in is None


def test_a_step_that_was_given_back_is_not_held_against_it() -> None:
    walk = Walk(a).start()
    for _ in range(9):
        lose(walk, Loss.GIVEN_BACK, limit=2)

    assert (walk.status, walk.process.lost) == ("running", 0)
    assert walk.entries[-1].note == "attempt 9 was given back by the consumer consumer-1"


def test_an_interrupted_attempt_says_nothing_about_the_step_and_is_repeated_with_growing_pauses() -> None:
    """Issue 9, 6a: the consumer lives all the time, so the step has not brought it down, however often this happens."""
    walk = Walk(a).start()
    pauses = []
    for _ in range(30):
        lose(walk, Loss.INTERRUPTED, "lost its database connection during the step", limit=2)
        pauses.append(walk.decision.retry_in)
        if walk.status == "waiting":
            walk.apply(RetryDue())

    assert pauses[:6] == [None, 1, 2, 4, 8, 16]
    assert pauses[-1] == 600
    assert (walk.status, walk.process.lost) == ("running", 0)
    assert walk.entries[-3].name == "attempt lost"
    assert walk.entries[-3].note == (
        "attempt 30 was lost: the consumer consumer-1 lost its database connection during the step"
    )


@pytest.mark.parametrize("in_between", ["failure", "success", "retry"])
def test_only_consumers_lost_in_a_row_count(in_between: str) -> None:
    walk = Walk(patient("p"), patient("q")).start()
    lose(walk)
    lose(walk, Loss.INTERRUPTED)
    lose(walk, Loss.CRASHED)
    assert (walk.process.lost, walk.process.interruptions, walk.process.crashes) == (1, 1, 1)

    if in_between == "failure":
        walk.fail(retry_in=1).apply(RetryDue())
    elif in_between == "success":
        walk.succeed()
    else:
        walk.fail().apply(Retried("bob"))

    assert (walk.process.lost, walk.process.interruptions, walk.process.crashes) == (0, 0, 0)


def test_a_loss_is_logged_with_attempt_and_consumer() -> None:
    walk = Walk(a).start()

    lose(walk)

    assert walk.entries[-1].note == "attempt 1 was lost: the consumer consumer-1 is presumed dead"


@pytest.mark.parametrize("loss", Loss)
def test_a_lost_step_that_the_code_has_moved_is_dispatched_where_the_process_then_stands(loss: Loss) -> None:
    """The claim compares the command's position with the process's."""
    walk = Walk(a, b).start().succeed().change_code(new, a, b).move()

    lose(walk, loss)

    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.step == "b"
    assert walk.decision.dispatch.position == walk.process.position == 2


@pytest.mark.parametrize("event", [RetryDue(), Retried("bob")])
def test_a_waiting_step_that_the_code_has_moved_is_dispatched_where_the_process_then_stands(
    event: RetryDue | Retried,
) -> None:
    walk = Walk(a, patient("p")).start().succeed().fail(retry_in=1).change_code(new, a, patient("p")).move()

    walk.apply(event)

    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.position == walk.process.position == 2


def test_a_question_that_was_gone_from_the_code_is_asked_again_and_not_sent_to_a_consumer() -> None:
    walk = Walk(question("q"), a).start().change_code(a)
    walk.apply(CodeChanged(FAILURE))

    walk.change_code(question("q"), a).apply(Retried("bob"))

    assert walk.status == "suspended"
    assert walk.news == [("retried", "running"), ("q", "suspend"), ("suspended", "suspended")]
    assert walk.decision.dispatch is None


def test_a_step_that_has_become_a_question_is_asked() -> None:
    walk = Walk(work("x"), a).start().fail().change_code(question("x"), a).move()

    walk.apply(Retried("bob"))

    assert walk.status == "suspended"
    assert walk.decision.dispatch is None


def test_the_idempotency_key_is_the_same_on_every_attempt() -> None:
    """B9."""
    walk = Walk(a, b).start()
    key = walk.process.idempotency_key("a")

    walk.fail().apply(Retried("bob"))
    lose(walk)

    assert walk.process.idempotency_key("a") == key
    assert walk.process.idempotency_key("b") != key


def test_the_idempotency_key_is_pinned() -> None:
    """B9: it is stored by external systems, so a new version of the engine must make the same."""
    assert Walk(a).process.idempotency_key("a") == "8feccfea-a2d7-54c5-ab8b-345a2cd97ffb"


def test_new_external_work_has_a_new_idempotency_key() -> None:
    """B9: only a retry that goes back to the action asks for new external work."""
    walk = Walk(external("job")).start().fail()
    first = walk.process.idempotency_key("job: start")
    walk.apply(Retried("bob"))
    assert walk.process.idempotency_key("job: start") == first

    walk.succeed().apply(CodeChanged(FAILURE))
    walk.apply(Retried("bob"))

    assert walk.process.idempotency_key("job: start") != first


def test_no_name_of_a_step_makes_two_idempotency_keys_equal() -> None:
    """A step may be named ``x#1``."""
    walk = Walk(external("job")).start().succeed()
    before = walk.process
    walk.apply(CodeChanged(FAILURE))
    after = walk.apply(Retried("bob")).process

    assert after.rewinds == 1
    assert after.idempotency_key("x") != before.idempotency_key("x#1")


def test_skipping_resets_the_counts() -> None:
    """B11."""
    walk = Walk(patient("p"), a).start().fail(retry_in=1)

    walk.apply(StepSkipped("bob", "done by hand"))

    assert (walk.process.step, walk.process.failures, walk.process.lost) == ("a", 0, 0)
