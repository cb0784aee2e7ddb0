"""B36: the life of a callback, from the action to the judgement of its answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.engine.decision import CloseCallback, MoveCallback, OpenCallback, ParkCallback
from orchestrator.engine.events import (
    Aborted,
    AttemptLost,
    CallbackCompleted,
    CallbackFailed,
    CodeChanged,
    Event,
    Loss,
    Retried,
    RetryDue,
    StepFailed,
    StepSkipped,
)
from orchestrator.errors import IllegalTransitionError
from orchestrator.workflow import callback_step
from tests.unit.walk import FAILURE, STAMP, Walk, external, patient, work

a = work("a")


def parked() -> Walk:
    """A process that waits for the answer to its job."""
    return Walk(external("job"), a).start().succeed(job_id=7)


def judged() -> Walk:
    """A process whose answer has come and is being judged."""
    walk = parked()
    walk.apply(CallbackCompleted(1, {"ok": True}))
    return walk


def test_arriving_at_the_action_opens_a_callback_for_the_waiting_step() -> None:
    walk = Walk(a, external("job", timeout=60)).start().succeed()

    assert walk.decision.callback == OpenCallback(2, "job", STAMP.make_token(), timedelta(seconds=60))
    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.step == "job: start"


def test_a_callback_without_timeout_waits_for_ever() -> None:
    assert Walk(external("job")).start().decision.callback == OpenCallback(1, "job", STAMP.make_token(), None)


def test_the_success_of_the_action_parks_the_callback() -> None:
    walk = parked()

    assert walk.decision.callback == ParkCallback()
    assert (walk.status, walk.process.position, walk.process.step) == ("awaiting_callback", 1, "job")
    assert walk.process.state == {"job_id": 7}


def test_an_answer_enters_the_state_under_the_result_key_and_is_validated() -> None:
    walk = judged()

    assert walk.decision.callback == CloseCallback("used")
    assert walk.process.state == {"job_id": 7, "callback_result": {"ok": True}}
    assert walk.entries[-2].delta == {"callback_result": {"ok": True}}


def test_the_result_key_is_the_authors() -> None:
    block = callback_step("w", work("go"), work("check"), result_key="answer")
    walk = Walk(block).start().succeed()

    walk.apply(CallbackCompleted(1, [1, 2]))

    assert walk.process.state == {"answer": [1, 2]}


@pytest.mark.parametrize("event", [CallbackCompleted(1, {}, "by ana"), CallbackFailed(1, FAILURE, "by ana")])
def test_the_entry_of_an_answer_says_what_is_noted_about_it(event: Event) -> None:
    walk = parked()

    walk.apply(event)

    assert walk.decision.entries[0].note == "by ana"


def test_a_failing_answer_fails_the_step_and_closes_the_callback() -> None:
    walk = parked()

    walk.apply(CallbackFailed(1, FAILURE))

    assert walk.decision.callback == CloseCallback("failed")
    assert (walk.status, walk.process.step) == ("failed", "job")


@pytest.mark.parametrize("event", [CallbackCompleted(0, {}), CallbackCompleted(2, {}), CallbackFailed(4, FAILURE)])
def test_an_answer_for_another_position_is_refused(event: Event) -> None:
    walk = parked()

    with pytest.raises(IllegalTransitionError, match="this callback belongs to another step"):
        walk.apply(event)


@pytest.mark.parametrize("event", [CallbackCompleted(1, {}), CallbackFailed(1, FAILURE)])
def test_an_answer_before_the_action_has_committed_is_refused_by_the_core(event: Event) -> None:
    """The edge keeps it until the process parks."""
    with pytest.raises(IllegalTransitionError):
        Walk(external("job")).start().apply(event)


@pytest.mark.parametrize("event", [CallbackCompleted(1, {}), CallbackFailed(1, FAILURE)])
def test_a_second_answer_is_refused(event: Event) -> None:
    with pytest.raises(IllegalTransitionError):
        judged().apply(event)


def test_an_answer_finds_its_step_where_the_code_has_moved_it() -> None:
    walk = parked().change_code(work("new"), external("job"), a).move()
    assert walk.decision.callback == MoveCallback(2)

    walk.apply(CallbackCompleted(2, {}))

    assert (walk.process.step, walk.process.position) == ("job: check", 3)


@pytest.mark.parametrize("failed_at", ["wait", "check"])
def test_a_retry_goes_back_to_the_action_of_a_callback_step(failed_at: str) -> None:
    walk = parked() if failed_at == "wait" else judged()
    if failed_at == "wait":
        walk.apply(CallbackFailed(1, FAILURE))
    else:
        walk.fail()

    walk.apply(Retried("bob"), replace(STAMP, make_token=lambda: "another"))

    assert (walk.process.step, walk.process.position, walk.process.rewinds) == ("job: start", 0, 1)
    assert walk.decision.callback == OpenCallback(1, "job", "another", None)
    assert walk.decision.dispatch is not None
    assert walk.decision.dispatch.position == 0


def test_a_retry_of_the_failed_action_is_no_rewind_but_has_a_new_token() -> None:
    walk = Walk(external("job")).start().fail()

    walk.apply(Retried("bob"), replace(STAMP, make_token=lambda: "another"))

    assert walk.process.rewinds == 0
    assert walk.decision.callback == OpenCallback(1, "job", "another", None)


def test_a_check_that_is_tried_again_by_itself_keeps_the_answer() -> None:
    walk = Walk(callback_step("job", work("go"), patient("check"))).start().succeed()
    walk.apply(CallbackCompleted(1, {"ok": True}))
    walk.fail(retry_in=3)

    walk.apply(RetryDue())

    assert (walk.process.step, walk.process.rewinds) == ("check", 0)
    assert walk.decision.callback is None
    assert walk.process.state == {"callback_result": {"ok": True}}


def test_an_action_that_is_tried_again_by_itself_keeps_its_token() -> None:
    """The job of the earlier try may have begun and must still be able to answer."""
    walk = Walk(callback_step("job", patient("go"), work("check"))).start()
    walk.claim().apply(StepFailed(1, FAILURE, 3.0))
    assert walk.decision.callback is None

    walk.apply(RetryDue(), replace(STAMP, make_token=lambda: "another"))

    assert walk.decision.callback is None


@pytest.mark.parametrize("given_back", [True, False])
def test_an_action_whose_consumer_died_keeps_its_token(*, given_back: bool) -> None:
    walk = Walk(external("job")).start().claim()

    walk.apply(
        AttemptLost(1, "c1", Loss.GIVEN_BACK if given_back else Loss.SILENT),
        replace(STAMP, make_token=lambda: "another"),
    )

    assert walk.decision.callback is None


def test_an_action_that_fails_supersedes_its_token() -> None:
    assert Walk(external("job")).start().fail().decision.callback == CloseCallback("superseded")


def test_an_action_that_is_given_up_supersedes_its_token() -> None:
    walk = Walk(external("job")).start().claim()

    walk.apply(AttemptLost(1, "c1", Loss.CRASHED, limit=1))

    assert walk.decision.callback == CloseCallback("superseded")


@pytest.mark.parametrize("make", [lambda: Walk(external("job")).start(), parked, judged])
def test_an_abort_supersedes_the_callback(make: object) -> None:
    assert callable(make)
    walk: Walk = make()

    walk.apply(Aborted("bob"))

    assert walk.decision.callback == CloseCallback("superseded")
    assert walk.status == "aborted"


@pytest.mark.parametrize("failed_at", ["action", "wait", "check"])
def test_skipping_any_part_of_a_callback_step_skips_the_rest_and_supersedes_the_callback(failed_at: str) -> None:
    """B11."""
    if failed_at == "action":
        walk = Walk(external("job"), a).start().fail()
    elif failed_at == "wait":
        walk = parked()
        walk.apply(CallbackFailed(1, FAILURE))
    else:
        walk = judged().fail()

    walk.apply(StepSkipped("bob", "done by hand"))

    assert walk.process.step == "a"
    assert walk.decision.callback == CloseCallback("superseded")
    skipped = [name for name, status in walk.news if status == "skipped"]
    assert skipped == ["job: start", "job", "job: check"][["action", "wait", "check"].index(failed_at) :]


def test_skipping_to_the_next_callback_step_opens_its_callback() -> None:
    walk = Walk(external("job"), external("other")).start().fail()

    walk.apply(StepSkipped("bob", "done by hand"))

    assert walk.decision.callback == OpenCallback(4, "other", STAMP.make_token(), None)


@pytest.mark.parametrize("make", [lambda: Walk(external("job")).start(), parked])
def test_a_step_that_is_gone_from_the_code_supersedes_its_callback(make: object) -> None:
    """Nobody could judge the answer, and a retry starts another job."""
    assert callable(make)
    walk: Walk = make()

    walk.apply(CodeChanged(FAILURE))

    assert walk.decision.callback == CloseCallback("superseded")


def test_every_job_of_several_has_its_own_callback() -> None:
    walk = Walk(external("job"), external("other")).start().succeed()
    walk.apply(CallbackCompleted(1, 1))
    walk.succeed()
    assert walk.decision.callback == OpenCallback(4, "other", STAMP.make_token(), None)
    walk.succeed()
    walk.apply(CallbackCompleted(4, 2))
    walk.succeed()

    assert walk.status == "completed"
    assert walk.process.state == {"callback_result": 2}
