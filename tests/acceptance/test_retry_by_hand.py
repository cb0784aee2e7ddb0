"""A failed step leaves nothing behind and can be retried as often as wanted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from tests.acceptance.client import COMMANDS
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import throughout, until


def test_a_failing_step_leaves_nothing_and_its_consumer_takes_the_next_command(engine: Installation) -> None:
    """B5: no rows, flushed, raw or pending, and no state keys; the reason and the traceback are kept."""
    process_id = engine.finish("mended", status="failed")
    assert engine.effects(process_id) == []
    assert engine.state(process_id) == {"prepared": True, "kept": ["as it was"]}
    (entry,) = engine.log(process_id, "Break until mended")
    assert entry.failure is not None
    assert entry.failure["message"] == "the node does not answer"
    assert "ProcessFailureError" in entry.failure["traceback"]
    assert entry.consumer is not None
    engine.finish("one_step")


def test_a_failure_that_only_the_commit_brings_to_light_leaves_nothing(engine: Installation) -> None:
    """B5: a deferred constraint is violated after the step has returned: failed with the database's words."""
    process_id = engine.finish("breaks_a_constraint", status="failed")
    assert engine.effects(process_id) == []
    assert engine.state(process_id) == {}
    (entry,) = engine.log(process_id, "Break a constraint at the commit")
    assert entry.failure is not None
    assert "strict_effects" in entry.failure["message"]
    engine.finish("one_step")


def test_a_failed_step_can_be_retried_without_limit_and_every_attempt_is_kept(engine: Installation) -> None:
    """B7: each try starts from the state after the last success; nothing of failed ones is visible, all are logged."""
    process_id = engine.finish("mended", status="failed")
    for number in range(2, 7):
        engine.retry(process_id)
        until(lambda n=number: len(engine.log(process_id, "Break until mended")) == n, f"attempt {number} is logged")  # type: ignore[misc]
        engine.wait_for(process_id, "failed")
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")

    tries = engine.journal(process_id, "try")
    assert len(tries) == 7
    assert all(one["state"] == {"prepared": True, "kept": ["as it was"]} for one in tries)
    entries = engine.log(process_id, "Break until mended")
    assert [one.status for one in entries] == ["failed"] * 6 + ["success"]
    assert [one.attempt for one in entries] == sorted({one.attempt for one in entries})
    assert sorted(engine.effects(process_id)) == ["flushed", "pending", "raw"]
    assert engine.state(process_id)["kept"] == ["as it was"]


def test_the_idempotency_key_is_one_per_process_and_step_and_stable_over_attempts(engine: Installation) -> None:
    """B9: the same on every attempt, another one for another step and another process."""
    process_id = engine.finish("mended", status="failed")
    other_id = engine.finish("mended", status="failed")
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")
    first, second = (one["key"] for one in engine.journal(process_id, "try"))
    assert first == second == engine.state(process_id)["mended"]
    assert engine.journal(process_id, "afterwards")[0]["key"] != first
    assert engine.journal(other_id, "try")[0]["key"] != first


def test_a_retry_sent_twice_runs_the_step_once(engine: Installation) -> None:
    """B4: a double click, 20 times at once: one is accepted, the others are refused, and the step runs once more."""
    process_id = engine.finish("mended", status="failed")
    engine.open_gate(f"mended-{process_id}")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: engine.resume(process_id), range(20)))
    assert sorted(answer.type or "" for answer in answers) == sorted(["process.resumed"] + ["workflow.refused"] * 19)
    refusals = [answer.body for answer in answers if answer.type == "workflow.refused"]
    assert {refusal["error"] for refusal in refusals} == {"IllegalTransitionError"}
    engine.wait_for(process_id, "completed")
    assert len(engine.journal(process_id, "try")) == 2
    assert sorted(engine.effects(process_id)) == ["flushed", "pending", "raw"]


def test_a_retry_that_the_broker_delivers_twice_runs_the_step_once(engine: Installation) -> None:
    """B4: the same message twice, at once and again when the step has failed again: one retry, and no dead letter."""
    process_id = engine.finish("mended", status="failed")
    number, body = uuid4().hex, {"process_id": str(process_id)}
    for _ in range(2):
        engine.client.send(COMMANDS, "process.resume", body, message_id=number)
    until(lambda: len(engine.log(process_id, "Break until mended")) == 2, "the retried step has failed again")
    engine.wait_for(process_id, "failed")
    again = engine.client.ask("process.resume", body, message_id=number)
    assert (again.type, again.body) == ("process.resumed", {"process_id": str(process_id), "status": "failed"})
    throughout(lambda: len(engine.journal(process_id, "try")) == 2, "no third try", 0.5)
    assert not [one for one in engine.client.dead_letters() if str(process_id).encode() in one.raw]


def test_a_step_command_that_is_delivered_twice_runs_the_step_once(engine: Installation) -> None:
    """B4: a copy of a command, published again and again while the step runs and after it, is ignored."""
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    copy = {
        "process_id": str(process_id),
        "workflow": "holds",
        "step": "Hold",
        "position": 1,
        "attempt": 0,
        "announced": 0,
    }
    for _ in range(5):
        engine.client.send("orchestrator.steps", "default", copy, kind="step.command")
    engine.open_gate(f"hold-{process_id}")
    for _ in range(5):
        engine.client.send("orchestrator.steps", "default", copy, kind="step.command")
    engine.wait_for(process_id, "completed")
    throughout(lambda: len(engine.journal(process_id, "held")) == 1, "the step runs once", 0.5)
    assert engine.effects(process_id) == ["Hold", "After the hold"]


def test_what_is_not_failed_cannot_be_retried(engine: Installation) -> None:
    """B7: a retry of a completed or unknown process is refused in words."""
    process_id = engine.finish("one_step")
    answer = engine.resume(process_id)
    assert answer.type == "workflow.refused"
    assert "a process that is completed cannot be retried" in answer.body["detail"]
    missing = engine.resume(uuid4())
    assert missing.body["error"] == "NotFoundError"


def test_a_retry_on_the_command_line_does_the_same(engine: Installation) -> None:
    """B2, B7: `orchestrator retry`, with its user in the log."""
    process_id = engine.finish("mended", status="failed")
    engine.open_gate(f"mended-{process_id}")
    engine.command("retry", str(process_id), "--user", "carol", "--wait")
    assert engine.status(process_id) == "completed"
    assert engine.log(process_id, "retried")[0].author == "carol"
    refused = engine.command("retry", str(process_id), exit_code=1)
    assert "a process that is completed cannot be retried" in refused.stderr
    assert "Traceback" not in refused.stderr
