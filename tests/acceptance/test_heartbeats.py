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
