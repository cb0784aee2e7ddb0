"""Attempts that end without an outcome: what counts against the step, and what does not."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from tests.acceptance.chaos import all_done, exactly_once, flood
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.waiting import until


def test_a_step_that_loses_its_database_connection_again_and_again_is_not_blamed(
    installations: MakeInstallation,
) -> None:
    """B8: the consumer lives all the time. The step is tried again, with growing pauses, and the log says what was seen."""
    engine = installations(ORCHESTRATOR_MAX_LOST_ATTEMPTS="2")
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    process_id = engine.start("is_cut_off")
    engine.wait_for_note(process_id, "writing", 4)
    engine.open_gate(f"connected-{process_id}")
    engine.wait_for(process_id, "completed")
    assert consumer.runs
    assert engine.effects(process_id) == ["Lose the connection"]
    lost = [one.note or "" for one in engine.log(process_id, "attempt lost")]
    assert len(lost) >= 4
    assert all(one.endswith("lost its database connection during the step") for one in lost), lost
    assert len(engine.log(process_id, "waiting")) == len(lost) - 1, "the first time it is tried again at once"
    exactly_once(engine)


def test_steps_whose_consumer_is_killed_again_and_again_run_apart_and_none_is_failed(
    installations: MakeInstallation,
) -> None:
    """B8: kill -9 of the consumer alone. Its children end with it; its steps run in a child of the next one, beside new work."""
    engine = installations(ORCHESTRATOR_MAX_LOST_ATTEMPTS="1", ORCHESTRATOR_PRESUMED_DEAD_AFTER="2")
    engine.coordinator().ready()
    process_ids = flood(engine, 30, "rests")

    def run_for_the(number: int) -> bool:
        started = Counter(one["process_id"] for one in engine.journal(what="resting"))
        return len(started) == len(process_ids) and min(started.values()) >= number

    for life in (1, 2, 3):
        consumer = engine.consumer()
        until(lambda n=life: run_for_the(n), f"all steps run for the {life}. time")  # type: ignore[misc]
        engine.finish("one_step")
        consumer.signal(signal.SIGKILL)
        pids = {one["pid"] for one in engine.journal(what="resting")}
        until(lambda p=pids: not any(Path(f"/proc/{pid}").exists() for pid in p), "its children end with it")  # type: ignore[misc]
    consumer = engine.consumer()
    until(lambda: run_for_the(4), "all steps run once more")
    assert consumer.pid not in {one["pid"] for one in engine.journal(what="resting")}, "apart from the consumer"
    (queue,) = [one for one in engine.json("status")["queues"] if one["name"] == "orchestrator.steps.default"]
    assert queue["ready"] == 0, "no copies of their commands gather"
    engine.open_gate("morning")
    all_done(engine, process_ids)
    notes = [one.note or "" for process_id in process_ids for one in engine.log(process_id, "attempt lost")]
    assert len(notes) >= 3 * len(process_ids)
    assert all("is presumed dead: it sent no heartbeat for" in one for one in notes), notes


def test_a_suspect_is_aborted_and_given_back_like_any_other_step(installations: MakeInstallation) -> None:
    """B8: an abort cancels it in its child process, which ends when the consumer drains."""
    engine = installations(
        ORCHESTRATOR_PRESUMED_DEAD_AFTER="2", ORCHESTRATOR_DRAIN_GRACE="0.5", ORCHESTRATOR_HEARTBEAT_INTERVAL="0.5"
    )
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    aborted, kept = engine.start("rests"), engine.start("rests")
    for process_id in (aborted, kept):
        engine.wait_for_note(process_id, "resting")
    consumer.kill()
    consumer = engine.consumer().ready()
    for process_id in (aborted, kept):
        engine.wait_for_note(process_id, "resting", 2)
    child = engine.journal(kept, "resting")[-1]["pid"]
    assert child != consumer.pid
    engine.abort(aborted)
    engine.wait_for_note(aborted, "cancelled")
    assert consumer.stop() == 0
    until(lambda: not Path(f"/proc/{child}").exists(), "the child ends with its consumer")
    assert len(engine.log(kept, "given back")) == 1
    engine.consumer().ready()
    engine.open_gate("morning")
    engine.wait_for(kept, "completed")
    assert engine.status(aborted) == "aborted"
    exactly_once(engine)


def test_a_step_that_blocks_its_loop_for_ever_is_ended_with_its_child_process_and_failed(
    installations: MakeInstallation,
) -> None:
    """B5: no timeout can end it, and its consumer lives all the time."""
    engine = installations(
        ORCHESTRATOR_MAX_LOST_ATTEMPTS="1",
        ORCHESTRATOR_PRESUMED_DEAD_AFTER="1",
        ORCHESTRATOR_HEARTBEAT_INTERVAL="0.2",
    )
    engine.coordinator().ready()
    first = engine.consumer().ready()
    process_id = engine.start("blocks_for_ever")
    assert first.exit_code() == 70
    consumer = engine.consumer().ready()
    engine.wait_for(process_id, "failed")
    failure = engine.log(process_id, "Block for ever")[-1].failure
    assert failure is not None
    assert failure["type"] == "ConsumerLostError"
    assert "that ran it alone: it ended itself, because its event loop was blocked for" in failure["message"]
    assert "by the step 'Block for ever' of 'blocks_for_ever'" in failure["message"]
    assert consumer.runs
