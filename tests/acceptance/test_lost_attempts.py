"""Attempts that end without an outcome: what counts against the step, and what does not."""

from __future__ import annotations

from tests.acceptance.chaos import exactly_once
from tests.acceptance.conftest import MakeInstallation


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
