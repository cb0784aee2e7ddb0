"""Consumers whose heartbeats are late, rare or judged by others: a step that runs is not run a second time."""

from __future__ import annotations

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.waiting import until

SILENCE = "SELECT max(EXTRACT(EPOCH FROM now() - seen_at))::float8 FROM consumers"


def test_a_consumer_that_beats_rarely_keeps_its_step_although_the_coordinator_would_beat_more_often(
    installations: MakeInstallation,
) -> None:
    """B8: two programs with different settings: the consumer's own limit counts, for coordinators and for 'status'."""
    engine = installations()
    engine.coordinator(ORCHESTRATOR_HEARTBEAT_INTERVAL="0.2", ORCHESTRATOR_PRESUMED_DEAD_AFTER="1").ready()
    rare = {"ORCHESTRATOR_HEARTBEAT_INTERVAL": "3", "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "20"}
    for _ in range(2):
        engine.consumer(**rare).ready()
    process_id = engine.start("holds")
    engine.wait_for_note(process_id, "held")
    until(lambda: engine.value(SILENCE) > 2, "the coordinator has seen a silence of twice its own limit")
    assert [one["alive"] for one in engine.json("status")["consumers"]] == [True, True]
    engine.open_gate(f"hold-{process_id}")
    engine.wait_for(process_id, "completed")
    assert len(engine.journal(process_id, "held")) == 1
    assert engine.log(process_id, "attempt lost") == []


def test_a_consumer_beats_beside_threads_that_compute_and_one_that_sleeps(installations: MakeInstallation) -> None:
    """They contend for Python's lock, which the heartbeat's thread needs as well."""
    engine = installations()
    engine.coordinator().ready()
    engine.consumer().ready()
    engine.client.listen()
    sleeps = engine.start("blocks_thread")
    engine.wait_for_note(sleeps, "held")
    computing = [engine.start("computes") for _ in range(4)]
    for process_id in computing:
        engine.wait_for_note(process_id, "computes")
    began = engine.value("SELECT now()")
    beaten = "SELECT max(seen_at) > $1::timestamptz + 2 * max(presumed_dead_after) * interval '1 second' FROM consumers"
    until(lambda: engine.value(beaten, began), "it has beaten for twice as long as it may be silent")
    engine.open_gate("computed")
    engine.open_gate(f"hold-{sleeps}")
    for process_id in (*computing, sleeps):
        engine.wait_for(process_id, "completed")
        assert engine.log(process_id, "attempt lost") == []
        assert [entry.attempt for entry in engine.log(process_id, kind="step") if entry.status == "success"][-1] == 1
