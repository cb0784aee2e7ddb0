"""Steps that are tried again by themselves."""

from __future__ import annotations

from itertools import pairwise

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import throughout, until


def test_a_retrystep_waits_and_is_tried_again_by_itself(engine: Installation) -> None:
    """B33: WAITING between the tries, each try logged, nothing of a failed one stored; then it goes on by itself."""
    process_id = engine.start("tried_again")
    until(lambda: engine.status(process_id) == "waiting", "the process waits")
    engine.wait_for_note(process_id, "try", 4)
    engine.open_gate(f"mended-{process_id}")
    engine.wait_for(process_id, "completed")
    entries = engine.log(process_id, "Try")
    assert {one.status for one in entries[:-1]} == {"waiting"}
    assert entries[-1].status == "success"
    assert len(entries) >= 4
    assert all(one.failure is not None and one.failure["type"] == "ConnectionError" for one in entries[:-1])
    assert len({one["key"] for one in engine.journal(process_id, "try")}) == 1
    assert engine.effects(process_id) == ["Try"]
    gaps = [later.started_at - earlier.finished_at for earlier, later in pairwise(entries)]
    assert min(gaps).total_seconds() >= 0.19


def test_a_limit_ends_in_failed_and_a_retry_by_hand_begins_to_count_again(engine: Installation) -> None:
    """B33: three tries, then FAILED; after a retry three more."""
    process_id = engine.start("tried_thrice")
    until(lambda: engine.status(process_id) == "failed", "the limit is reached")
    assert [one.status for one in engine.log(process_id, "Try")] == ["waiting", "waiting", "failed"]
    engine.retry(process_id)
    until(lambda: len(engine.log(process_id, "Try")) == 6, "three more tries")
    assert [one.status for one in engine.log(process_id, "Try")][3:] == ["waiting", "waiting", "failed"]
    assert len(engine.journal(process_id, "try")) == 6
    assert engine.effects(process_id) == []


def test_a_waiting_step_can_be_tried_by_hand_at_once(engine: Installation) -> None:
    """B33: nobody waits an hour."""
    process_id = engine.start("tried_late")
    until(lambda: engine.status(process_id) == "waiting", "the process waits")
    throughout(lambda: len(engine.journal(process_id, "try")) == 1, "not tried by itself within the hour", 1)
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")
    assert len(engine.journal(process_id, "try")) == 2


def test_a_waiting_process_can_be_aborted_and_skipped(engine: Installation) -> None:
    """B33: it holds nothing, so both are immediate."""
    aborted, skipped = engine.start("tried_late"), engine.start("tried_late")
    for process_id in (aborted, skipped):
        until(lambda p=process_id: engine.status(p) == "waiting", "the process waits")  # type: ignore[misc]
    assert engine.abort(aborted).body["status"] == "aborted"
    engine.command("skip", str(skipped), "--reason", "not needed", "--wait")
    assert engine.status(skipped) == "completed"
    assert engine.status(aborted) == "aborted"


def test_a_defect_of_the_code_is_not_tried_again_by_itself(engine: Installation) -> None:
    """B33: returning nonsense gives the same every time: FAILED, for a person to look at."""
    process_id = engine.finish("never_by_itself", status="failed")
    throughout(lambda: len(engine.journal(process_id, "try")) == 1, "not tried again", 0.6)
