"""The state is a log of work: bounded, and mendable without SQL."""

from __future__ import annotations

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until


def test_a_state_above_the_soft_limit_is_stored_with_a_warning_and_above_the_hard_limit_fails_the_step(
    installations: MakeInstallation,
) -> None:
    """B10: both limits, with texts that name size, limit and setting."""
    engine = installations(ORCHESTRATOR_STATE_SOFT_LIMIT="1000", ORCHESTRATOR_STATE_HARD_LIMIT="5000")
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()

    small = engine.finish("grows", {"size": 500})
    assert engine.log(small, "Grow")[0].note is None

    soft = engine.finish("grows", {"size": 2000})
    (entry,) = engine.log(soft, "Grow")
    assert entry.note is not None
    assert "more than the soft limit of 1000 (ORCHESTRATOR_STATE_SOFT_LIMIT)" in entry.note
    assert len(engine.state(soft)["big"]) == 2000

    hard = engine.finish("grows", {"size": 6000}, status="failed")
    (entry,) = engine.log(hard, "Grow")
    assert entry.failure is not None
    assert entry.failure["type"] == "InvalidResultError"
    assert "more than the limit of 5000 (ORCHESTRATOR_STATE_HARD_LIMIT)" in entry.failure["message"]
    assert engine.state(hard) == {"size": 6000}
    assert engine.effects(hard) == []


def test_an_answer_that_is_too_large_for_the_state_fails_its_step(installations: MakeInstallation) -> None:
    """B10: with a clear text; the answer is used up, a retry asks again, and a smaller one is taken."""
    engine = installations(ORCHESTRATOR_STATE_HARD_LIMIT="5000")
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    process_id = engine.start("calls_out")
    engine.open_gate(f"order-{process_id}")
    token = engine.token(process_id)
    engine.wait_for(process_id, "awaiting_callback")

    engine.answer(token, {"ok": True, "text": "x" * 6000})
    engine.wait_for(process_id, "failed")
    entry = engine.log(process_id, "Await the order")[-1]
    assert entry.status == "failed"
    assert entry.failure is not None
    assert entry.failure["type"] == "InvalidResultError"
    assert "the callback's answer cannot be taken: the state would have 60" in entry.failure["message"]
    assert engine.state(process_id) == {"ordered": True}

    engine.answer(token, {"ok": True})
    until(engine.client.dead_letters, "a second answer is refused")
    assert "callback refused (failed)" in engine.client.dead[0].headers["x-reason"]
    engine.retry(process_id)
    again = engine.token(process_id, 2)
    engine.wait_for(process_id, "awaiting_callback")
    engine.answer(again, {"ok": True})
    engine.wait_for(process_id, "completed")


def test_the_state_of_a_failed_process_can_be_patched_with_a_reason(engine: Installation) -> None:
    """B11: set and removed keys, logged as a row of their own with author and reason; the retry sees the new state."""
    process_id = engine.finish("wrong_argument", {"value": "seven"}, status="failed")
    changes = ["--set", "value=7", "--set", "never_set=1", "--set", 'extra="x"']
    engine.command("patch", str(process_id), *changes, "--reason", "typo in the CRM", "--user", "dora")
    engine.command("patch", str(process_id), "--remove", "extra", "--reason", "not needed", "--user", "dora")
    assert engine.state(process_id) == {"value": 7, "never_set": 1}
    first, second = engine.log(process_id, "patched")
    assert (first.author, first.note, first.kind) == ("dora", "typo in the CRM", "process")
    assert first.delta == {"value": 7, "never_set": 1, "extra": "x"}
    assert second.delta == {}
    assert engine.json("show", str(process_id))["log"][second.sequence - 1]["removed"] == ["extra"]
    assert engine.status(process_id) == "failed"

    engine.command("retry", str(process_id), "--wait")
    assert engine.state(process_id) == {"value": 7, "never_set": 1, "doubled": 14}


def test_the_state_of_a_suspended_process_can_be_patched(engine: Installation) -> None:
    """B11: the form sees the patched state."""
    process_id = engine.start("asks")
    engine.wait_for(process_id, "suspended")
    engine.command("patch", str(process_id), "--set", 'offers=["green"]', "--reason", "no red any more")
    shown = engine.json("show", str(process_id))
    assert shown["form"]["properties"]["choice"]["offers"] == ["green"]
    assert engine.resume(process_id, {"choice": "green"}, {"sure": True}).type == "process.resumed"
    engine.wait_for(process_id, "completed")


def test_a_patch_without_a_reason_or_of_a_running_process_is_refused(engine: Installation) -> None:
    """B11: nothing changes, and the text says why."""
    failed = engine.finish("wrong_argument", {"value": "seven"}, status="failed")
    assert engine.command("patch", str(failed), "--set", "value=7", exit_code=2).stderr
    refused = engine.command("patch", str(failed), "--set", "value=7", "--reason", " ", exit_code=None)
    assert refused.returncode in {1, 2}
    assert "reason" in refused.stderr
    refused = engine.command("patch", str(failed), "--remove", "absent", "--reason", "x", exit_code=1)
    assert "no key 'absent'" in refused.stderr
    assert engine.state(failed) == {"value": "seven"}

    completed = engine.finish("one_step")
    refused = engine.command("patch", str(completed), "--set", "a=1", "--reason", "x", exit_code=1)
    assert "it is final" in refused.stderr
    assert "a" not in engine.state(completed)


def test_a_failed_step_can_be_skipped_with_a_reason(engine: Installation) -> None:
    """B11: the skip is logged with author and reason, and the process goes on after it."""
    process_id = engine.finish("mended", status="failed")
    engine.command("skip", str(process_id), "--reason", "done by hand", "--user", "emil", "--wait")
    assert engine.status(process_id) == "completed"
    failed, skipped = engine.log(process_id, "Break until mended")
    assert failed.status == "failed"
    assert (skipped.status, skipped.author, skipped.note) == ("skipped", "emil", "done by hand")
    assert "mended" not in engine.state(process_id)
    assert [one["what"] for one in engine.journal(process_id)] == ["prepare", "try", "afterwards"]
    refused = engine.command("skip", str(process_id), "--reason", "again", exit_code=1)
    assert "completed" in refused.stderr
