"""Steps that wait for an external system, and every way in which its answer can come."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from tests.acceptance.client import CALLBACKS
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import throughout, until


def parked(engine: Installation, workflow: str = "calls_out", *inputs: dict[str, str]) -> tuple[UUID, str]:
    """A process that waits for its callback, and the token."""
    process_id = engine.start(workflow, *inputs)
    engine.open_gate(f"order-{process_id}")
    token = engine.token(process_id)
    engine.wait_for(process_id, "awaiting_callback")
    return process_id, token


def refusals(engine: Installation, marker: str) -> list[str]:
    """The reasons of the dead letters whose body holds a marker."""
    return [one.headers["x-reason"] for one in engine.client.dead_letters() if marker.encode() in one.raw]


def test_one_message_finishes_a_callback(engine: Installation) -> None:
    """B36, B40: AWAITING_CALLBACK holds nothing; the payload arrives under result_key and is judged; then on it goes."""
    process_id, token = parked(engine)
    row = engine.query("SELECT claimed_by, position FROM processes WHERE process_id = $1", process_id)[0]
    assert tuple(row) == (None, 2)
    engine.answer(token, {"ok": True, "port": 7})
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id) == {
        "ordered": True,
        "callback_result": {"ok": True, "port": 7},
        "checked": True,
    }
    assert [(one.name, one.status) for one in engine.log(process_id, kind="step")] == [
        ("Start", "success"),
        ("Order", "success"),
        ("Await the order", "awaiting_callback"),
        ("Await the order", "success"),
        ("Check", "success"),
        ("After the callback", "success"),
        ("Done", "complete"),
    ]
    assert engine.effects(process_id) == ["Order", "Check"]
    assert engine.journal(process_id, "order")[0]["exchange"] == "orchestrator.callbacks"
    (line,) = [one for one in engine.logs().splitlines() if "callback received" in one and str(process_id) in one]
    assert "workflow=calls_out" in line
    assert "step='Await the order'" in line


def test_an_answer_that_comes_before_the_action_has_committed_is_kept(engine: Installation) -> None:
    """B36: the external system is faster than our commit; nothing is lost, also when it answers twice."""
    process_id = engine.start("calls_out")
    token = engine.token(process_id)
    engine.answer(token, {"ok": True, "which": "first"})
    until(
        lambda: engine.value("SELECT outcome FROM callbacks WHERE process_id = $1", process_id),
        "the early answer is kept",
    )
    engine.answer(token, {"ok": False, "which": f"second of {process_id}"})
    reasons = until(lambda: refusals(engine, f"second of {process_id}"), "the second answer is refused")
    assert "callback refused (used)" in reasons[0]
    assert engine.status(process_id) == "running"
    engine.open_gate(f"order-{process_id}")
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["callback_result"] == {"ok": True, "which": "first"}
    assert len(engine.journal(process_id, "check")) == 1


def test_of_many_answers_with_one_token_exactly_one_counts(engine: Installation) -> None:
    """B36: twenty at once, all different; the others become dead letters with the reason."""
    process_id, token = parked(engine)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: engine.answer(token, {"ok": True, "n": n, "of": str(process_id)}), range(20)))
    engine.wait_for(process_id, "completed")
    until(lambda: len(refusals(engine, str(process_id))) == 19, "19 answers are refused")
    assert all("(used)" in reason for reason in refusals(engine, str(process_id)))
    assert len(engine.journal(process_id, "check")) == 1
    assert engine.effects(process_id) == ["Order", "Check"]


def test_a_forged_token_is_refused_and_does_not_reach_the_dead_letter_queue(engine: Installation) -> None:
    """B36: unknown, empty and missing tokens; the dead letter carries the reason but not the token."""
    process_id, token = parked(engine)
    forged = [token[:-1] + ("A" if token[-1] != "A" else "B"), token.upper(), "x" * 200, "' OR 1=1 --"]
    for number, one in enumerate(forged):
        engine.answer(one, {"forged": f"{process_id}-{number}"})
    engine.client.send(CALLBACKS, "callback.completed", {"forged": f"{process_id}-none"})
    until(lambda: len(refusals(engine, f"{process_id}-")) == 5, "all five are dead letters")
    found = {one.body["forged"]: one for one in engine.client.dead if f"{process_id}-".encode() in one.raw}
    for number, one in enumerate(forged):
        letter = found[f"{process_id}-{number}"]
        assert "callback refused (unknown): there is no such callback token" in letter.headers["x-reason"]
        assert letter.correlation_id is None
        assert one not in repr(letter)
    assert "no correlation_id" in found[f"{process_id}-none"].headers["x-reason"]
    assert engine.status(process_id) == "awaiting_callback"
    engine.answer(token, {"ok": True})
    engine.wait_for(process_id, "completed")


def test_a_token_of_one_process_does_nothing_for_another(engine: Installation) -> None:
    """B36: two processes wait; each token moves its own."""
    first, first_token = parked(engine)
    second, second_token = parked(engine)
    assert first_token != second_token
    engine.answer(second_token, {"ok": True})
    engine.wait_for(second, "completed")
    assert engine.status(first) == "awaiting_callback"
    engine.abort(first)


def test_a_late_answer_after_an_abort_is_refused(engine: Installation) -> None:
    """B36: the token is superseded."""
    process_id, token = parked(engine)
    engine.abort(process_id)
    engine.answer(token, {"ok": True, "late": str(process_id)})
    reasons = until(lambda: refusals(engine, str(process_id)), "the late answer is refused")
    assert "(superseded)" in reasons[0]
    assert engine.status(process_id) == "aborted"
    assert "callback_result" not in engine.state(process_id)


def test_a_retry_starts_again_at_the_action_with_a_new_token_and_key(engine: Installation) -> None:
    """B36: the validate step judged badly; the old token is worth nothing, the new one finishes the process."""
    process_id, old = parked(engine)
    engine.answer(old, {"ok": False})
    engine.wait_for(process_id, "failed")
    (entry,) = engine.log(process_id, "Check")
    assert entry.failure is not None
    assert entry.failure["message"] == "the job was not done well"
    engine.retry(process_id)
    new = engine.token(process_id, 2)
    assert new != old
    engine.wait_for(process_id, "awaiting_callback")
    engine.answer(old, {"ok": True, "old": str(process_id)})
    until(lambda: refusals(engine, str(process_id)), "the old token is refused")
    assert engine.status(process_id) == "awaiting_callback"
    engine.answer(new, {"ok": True, "new": True})
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id)["callback_result"] == {"ok": True, "new": True}
    first, second = (one["key"] for one in engine.journal(process_id, "order"))
    assert first != second, "new external work has a new key"
    assert engine.effects(process_id) == ["Order", "Order", "Check"], "each successful action counts, the bad check not"


def test_the_external_system_can_report_failure(engine: Installation) -> None:
    """B36: callback.failed fails the step with its words and details."""
    process_id, token = parked(engine)
    engine.answer(token, {"error": "no such port", "code": 17}, kind="failed")
    engine.wait_for(process_id, "failed")
    entry = engine.log(process_id, "Await the order")[-1]
    assert entry.failure is not None
    assert entry.failure["type"] == "CallbackFailedError"
    assert "no such port" in entry.failure["message"]
    assert entry.failure["details"] == {"error": "no such port", "code": 17}
    assert engine.journal(process_id, "check") == []


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"reason": "no such port", "code": 17}, '{"reason":"no such port","code":17}'),
        ({"error": {"code": 17}}, '{"error":{"code":17}}'),
        ({}, "{}"),
    ],
    ids=["under another name", "no text", "nothing"],
)
def test_a_failure_without_a_text_under_error_shows_what_was_sent(
    engine: Installation, sent: dict[str, object], shown: str
) -> None:
    """B36: the answer was given, so the process fails; people read what there is of a reason, and where it belongs."""
    process_id, token = parked(engine)
    engine.answer(token, sent, kind="failed")
    engine.wait_for(process_id, "failed")
    failure = engine.log(process_id, "Await the order")[-1].failure
    assert failure is not None
    assert failure["message"] == (
        f"the external system reports failure: it sent {shown}, without a text under 'error', which would stand here"
    )
    assert failure["details"] == sent


def test_the_reason_of_an_external_system_is_shown_however_deep_the_rest_of_its_answer_is(engine: Installation) -> None:
    """What cannot be stored is left out, and named."""
    process_id, token = parked(engine)
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    engine.answer(token, {"trace": deep, "error": "no such port"}, kind="failed")
    engine.wait_for(process_id, "failed")
    failure = engine.log(process_id, "Await the order")[-1].failure
    assert failure is not None
    assert "no such port" in failure["message"]
    assert failure["details"] == {
        "error": "no such port",
        "left_out": "the rest of the answer: it is nested 303 levels deep, and 100 are the limit",
    }


def test_progress_is_shown_and_replaced(engine: Installation) -> None:
    """B36: any number of reports; the newest is shown; the process waits on."""
    process_id, token = parked(engine)

    def shown() -> object:
        return engine.json("show", str(process_id))["callback"]["progress"]

    # One after the other: messages that are under way at the same time may overtake each other.
    engine.answer(token, {"percent": 10}, kind="progress")
    until(lambda: shown() == {"percent": 10}, "the progress is shown")
    engine.answer(token, {"percent": 60}, kind="progress")
    until(lambda: shown() == {"percent": 60}, "the newest progress is shown")
    assert engine.status(process_id) == "awaiting_callback"
    entries = len(engine.log(process_id))
    engine.answer(token, {"ok": True})
    engine.wait_for(process_id, "completed")
    assert len(engine.log(process_id)) > entries
    assert "percent" not in str(engine.state(process_id))


def test_a_deadline_that_passes_fails_the_step_and_refuses_what_comes_later(engine: Installation) -> None:
    """B36: CallbackTimeoutError, then `expired`; a retry calls out again."""
    process_id, token = parked(engine, "calls_out_late")
    engine.wait_for(process_id, "failed")
    failure = engine.log(process_id, "Await the order")[-1].failure
    assert failure is not None
    assert failure["type"] == "CallbackTimeoutError"
    assert "no answer within 2 s" in failure["message"]
    engine.answer(token, {"ok": True, "expired": str(process_id)})
    reasons = until(lambda: refusals(engine, str(process_id)), "the expired answer is refused")
    assert "(expired)" in reasons[0]
    engine.retry(process_id)
    engine.answer(engine.token(process_id, 2), {"ok": True})
    until(lambda: engine.status(process_id) == "completed", "the second answer completes the process")


def test_an_answer_that_is_no_json_object_is_a_dead_letter_and_the_token_stays_good(engine: Installation) -> None:
    """B36: lists, plain text, NaN, a null character and a message that is too large change nothing."""
    process_id, token = parked(engine)
    before = len(engine.client.dead_letters())
    bodies = [b"[1, 2]", b"not json", b'{"a": NaN}', b'{"a": "\\u0000"}', b"", b'{"a": "' + b"x" * 1_048_576 + b'"}']
    for body in bodies:
        engine.client.send(CALLBACKS, "callback.completed", body, correlation_id=token)
    until(lambda: len(engine.client.dead_letters()) >= before + len(bodies), "all are dead letters")
    assert engine.status(process_id) == "awaiting_callback"
    engine.answer(token, {"ok": True})
    engine.wait_for(process_id, "completed")


def test_a_skipped_callback_step_opens_nothing_and_the_condition_is_asked_once(engine: Installation) -> None:
    """B35, B36: decided before the action, not again after the wait although the state has changed; own result key."""
    skipped = engine.finish("calls_out_conditionally", {"name": "unwanted"})
    assert [one.status for one in engine.log(skipped, kind="step")][1:4] == ["skipped"] * 3
    assert engine.value("SELECT count(*) FROM callbacks WHERE process_id = $1", skipped) == 0

    asked = len(engine.journal(UUID(int=0), "asked"))
    process_id, token = parked(engine, "calls_out_conditionally", {"name": "wanted"})
    engine.command("show", str(process_id))
    engine.answer(token, {"name": "not any more"})
    engine.wait_for(process_id, "completed")
    assert engine.state(process_id) == {"name": "not any more", "delivered": {"name": "not any more"}}
    assert len(engine.journal(UUID(int=0), "asked")) == asked + 1


def test_a_waiting_callback_cannot_be_retried_or_given_input(engine: Installation) -> None:
    """B36: a conflict, in words; nothing moves."""
    process_id, token = parked(engine)
    assert "awaiting_callback cannot be retried" in engine.resume(process_id).body["detail"]
    assert "takes no input" in engine.resume(process_id, {"callback_result": {"ok": True}}).body["detail"]
    throughout(lambda: engine.status(process_id) == "awaiting_callback", "the process still waits", 0.3)
    engine.answer(token, {"ok": True})
    engine.wait_for(process_id, "completed")


def test_the_token_survives_the_death_of_the_consumer_that_handed_it_out(own: Installation) -> None:
    """B36, B8: the job of the lost run answers with the same token and idempotency key; the action's rows exist once."""
    process_id = own.start("calls_out_and_dies")
    token = own.token(process_id)
    until(lambda: not own.programs[1].runs, "the consumer died")
    own.consumer().ready()
    assert own.token(process_id, 2) == token
    own.wait_for(process_id, "awaiting_callback")
    own.answer(token, {"ok": True})
    own.wait_for(process_id, "completed")
    assert own.effects(process_id) == ["Order and die", "Check"]
    assert len({one["key"] for one in own.journal(process_id, "order")}) == 1


def test_a_parked_callback_survives_the_death_of_all_programs(own: Installation) -> None:
    """B36, B8: it waits in the database; an answer that comes while nothing runs is taken later."""
    process_id, token = parked(own)
    own.kill_all()
    own.answer(token, {"ok": True})
    for program in (own.coordinator(), own.consumer()):
        program.ready()
    own.wait_for(process_id, "completed")
    assert own.effects(process_id) == ["Order", "Check"]
