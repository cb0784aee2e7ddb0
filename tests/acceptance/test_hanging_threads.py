"""Threads that never come back: other steps go on, and a program that has too many of them ends by itself."""

from __future__ import annotations

import os

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.waiting import until

THREADS = 2
FORMS = 40
"""More forms that hang than threads that a program replaces."""


def test_a_consumer_with_too_many_hanging_threads_gives_back_what_waits_and_ends_for_its_supervisor(
    installations: MakeInstallation,
) -> None:
    engine = installations(ORCHESTRATOR_STEP_THREADS=str(THREADS), ORCHESTRATOR_DRAIN_GRACE="1")
    engine.installed = True
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    engine.client.listen()
    hanging = [engine.start("hangs")]
    until(lambda: engine.json("status")["consumers"][0]["threads_left_behind"] == 1, "'status' counts the lost thread")
    assert "1 thread runs a function that goes on after the end of the step" in engine.command("status").stdout
    hanging.append(engine.start("hangs"))
    engine.wait_for_note(hanging[1], "hangs")
    # One of them takes the thread that replaces the lost one, another one that of the second; the others wait.
    waiting = [engine.start("blocks_thread") for _ in range(THREADS + 2)]
    assert consumer.exit_code(120) == os.EX_TEMPFAIL
    assert "thread left behind" in consumer.output()
    assert "the program ends, for its supervisor to start another one" in consumer.output()
    for process_id in hanging:
        assert engine.status(process_id) == "failed"
    not_begun = [process_id for process_id in waiting if not engine.journal(process_id, "held")]
    assert len(not_begun) >= len(waiting) - THREADS
    assert any(engine.log(process_id, "given back") for process_id in not_begun)
    for process_id in waiting:
        engine.open_gate(f"hold-{process_id}")
    engine.consumer().ready()
    for process_id in waiting:
        engine.wait_for(process_id, "completed")


def test_a_coordinator_whose_forms_hang_ends_for_its_supervisor_and_loses_no_start(
    installations: MakeInstallation,
) -> None:
    engine = installations(ORCHESTRATOR_DATABASE_POOL_SIZE="20")
    coordinator = engine.coordinator(FORM_SECONDS="0.3").ready()
    for number in range(FORMS):
        request = {"workflow": "asks_and_hangs", "inputs": [{}]}
        engine.client.send("orchestrator.commands", "workflow.start", request, message_id=f"{number}")
    assert coordinator.exit_code(120) == os.EX_TEMPFAIL
    said = coordinator.output()
    assert "the form of 'asks_and_hangs'" in said
    assert "the program ends, for its supervisor to start another one" in said
    # Its successor takes what it has left, and what comes.
    engine.coordinator().ready()
    engine.consumer().ready()
    engine.client.listen()
    engine.finish("one_step")


def test_a_signal_ends_a_consumer_in_its_grace_although_threads_hang(installations: MakeInstallation) -> None:
    engine = installations(ORCHESTRATOR_DRAIN_GRACE="1", ORCHESTRATOR_STEP_THREADS=str(THREADS))
    engine.installed = True
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    engine.client.listen()
    processes = [engine.start("hangs_for_long") for _ in range(THREADS)]
    for process_id in processes:
        engine.wait_for_note(process_id, "hangs")
    # Their threads are lost, too, and are as many as may be: it ends in the same way.
    assert consumer.stop(25) == 0
    assert all(engine.log(process_id, "given back") for process_id in processes)
