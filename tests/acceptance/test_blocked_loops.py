"""Code of authors that blocks an event loop: the program lives on, says who blocks it, and can be ended."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Program
from tests.acceptance.waiting import until

IMPATIENT = {
    "ORCHESTRATOR_HEARTBEAT_INTERVAL": "0.5",
    "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "4",  # a thread may have to wait for its turn on a busy machine
    "ORCHESTRATOR_LOG_FORMAT": "json",
}
CUT_OFF = ("message not acknowledged", "broker connection lost", "a server is away")
"""What a program logs about a broker that has closed its connection."""

UNRESPONSIVE = "SELECT COALESCE(max(EXTRACT(EPOCH FROM now() - responsive_at)), 0)::float8 FROM consumers"


def logged(program: Program, event: str) -> list[dict[str, Any]]:
    """Return the log lines that a program has written about an event."""
    lines = [line for line in program.output().splitlines() if line.startswith("{")]
    return [found for line in lines if event in (found := json.loads(line))["event"]]


def blocked_line(engine: Installation) -> str:
    """Return what 'status' says about a consumer that does not respond."""
    lines = [line for line in engine.command("status").stdout.splitlines() if "does not respond" in line]
    return lines[0] if lines else ""


def test_a_step_that_blocks_the_event_loop_runs_once_and_is_named(installations: MakeInstallation) -> None:
    """B8: for longer than the presumed-dead time, beside a sleeping step and a step in a thread: nobody loses an attempt."""
    engine = installations(**IMPATIENT)
    engine.coordinator().ready()
    first = engine.consumer().ready()
    neighbours = [engine.start("holds"), engine.start("blocks_thread")]
    for process_id in neighbours:
        engine.wait_for_note(process_id, "held")
    blocking = engine.start("blocks")
    engine.wait_for_note(blocking, "blocking")
    second = engine.consumer().ready()
    until(lambda: engine.value(UNRESPONSIVE) > 6, "the first consumer has not responded for longer than the limit")

    said = until(lambda: blocked_line(engine), "'status' says that the consumer does not respond")
    assert "by the step 'Block the loop' of 'blocks' at " in said
    assert "blocking.py:" in said
    consumers = {one["name"]: one for one in engine.json("status")["consumers"]}
    assert len(consumers) == 2
    assert all(one["alive"] for one in consumers.values())
    (stuck,) = [one for one in consumers.values() if one["blocked_by"]]
    assert stuck["blocked_by"]["process_id"] == str(blocking)
    assert stuck["blocked_for"] > 2

    for process_id in (blocking, *neighbours):
        engine.open_gate(f"block-{process_id}")
        engine.open_gate(f"hold-{process_id}")
    for process_id in (blocking, *neighbours):
        engine.wait_for(process_id, "completed")
        assert engine.log(process_id, "attempt lost") == []
    assert len(engine.journal(blocking, "blocking")) == 1
    assert [len(engine.journal(process_id, "held")) for process_id in neighbours] == [1, 1]
    assert second.runs

    reports = logged(first, "event loop blocked")
    assert len(reports) >= 2, "at growing intervals"
    assert reports[0]["by"] == "the step 'Block the loop' of 'blocks'"
    assert reports[0]["process_id"] == str(blocking)
    assert "block_until" in reports[0]["frames"][-1]
    assert logged(first, "event loop responds again")
    (entry,) = engine.log(blocking, "Block the loop")
    assert entry.note is not None
    assert entry.note.startswith("blocked its consumer's event loop for ")
    assert "blocking.py:" in entry.note


@pytest.mark.parametrize(
    ("workflow", "step", "status"),
    [
        ("blocks_in_child", "Block in a child task", "completed"),
        ("blocks_and_fails", "Fail after blocking", "failed"),
    ],
)
def test_the_log_of_the_process_says_that_a_step_has_blocked_the_loop(
    installations: MakeInstallation, workflow: str, step: str, status: str
) -> None:
    engine = installations(**IMPATIENT)
    engine.coordinator().ready()
    engine.consumer().ready()
    process_id = engine.start(workflow)
    engine.wait_for_note(process_id, "blocking")
    until(lambda: engine.value(UNRESPONSIVE) > 1.5, "the consumer does not respond")
    engine.open_gate(f"block-{process_id}")
    engine.wait_for(process_id, status)
    (entry,) = engine.log(process_id, step)
    assert entry.note is not None
    assert entry.note.startswith("blocked its consumer's event loop for ")


def test_a_form_that_blocks_the_event_loop_of_a_coordinator_is_named(installations: MakeInstallation) -> None:
    engine = installations(**IMPATIENT)
    coordinator = engine.coordinator().ready()
    engine.client.send("orchestrator.commands", "workflow.start", {"workflow": "asks_and_blocks"})
    engine.wait_for_note("form", "blocking")
    report = until(lambda: logged(coordinator, "event loop blocked"), "the coordinator says that it is blocked")[0]
    assert report["by"] == "the form of 'asks_and_blocks'"
    assert "blocking.py:" in report["at"]
    engine.open_gate("form")
    until(lambda: logged(coordinator, "event loop responds again"), "the coordinator goes on")


def test_a_coordinator_whose_loop_was_blocked_for_longer_than_the_brokers_heartbeat_connects_again(
    installations: MakeInstallation,
) -> None:
    """The broker has closed its connections meanwhile; whatever the log says of that names the loop as well."""
    engine = installations(**IMPATIENT)
    coordinator = engine.coordinator(ORCHESTRATOR_AMQP_URL=f"{engine.amqp_url}?heartbeat=1").ready()
    engine.consumer().ready()
    engine.client.send("orchestrator.commands", "workflow.start", {"workflow": "asks_and_blocks"})
    engine.wait_for_note("form", "blocking")
    until(
        lambda: any(one["seconds"] > 4 for one in logged(coordinator, "event loop blocked")),
        "the loop is blocked for more than three heartbeats of the broker",
    )
    engine.open_gate("form")
    until(lambda: len(logged(coordinator, "consuming")) > 1, "the coordinator has connected again")
    said = [one["event"] for event in CUT_OFF for one in logged(coordinator, event)]
    assert said
    assert [one for one in said if "its event loop was blocked for" not in one or "asks_and_blocks" not in one] == []
    engine.finish("one_step")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_program_whose_loop_is_blocked(
    installations: MakeInstallation, number: signal.Signals
) -> None:
    """In 'orchestrator dev', as a person sees it."""
    engine = installations(**IMPATIENT | {"ORCHESTRATOR_LOG_FORMAT": "console"})
    program = engine.run("dev", "dev").ready()
    process_id = engine.start("blocks")
    engine.wait_for_note(process_id, "blocking")
    program.signal(number)
    until(lambda: "stopping when the event loop responds; a second signal" in program.output(), "it is noticed")
    assert program.runs
    program.signal(number)
    assert program.exit_code() == 128 + number
    reports = [line for line in program.output().splitlines() if "event loop blocked" in line]
    # On a busy machine importing modules blocks it, too.
    assert any("the step 'Block the loop' of 'blocks'" in report and "blocking.py:" in report for report in reports)
    assert "Traceback" not in program.output()


def test_a_first_signal_while_the_loop_is_blocked_stops_the_program_afterwards(installations: MakeInstallation) -> None:
    engine = installations(**IMPATIENT)
    program = engine.run("dev", "dev").ready()
    process_id = engine.start("blocks")
    engine.wait_for_note(process_id, "blocking")
    program.signal(signal.SIGTERM)
    until(lambda: logged(program, "stopping when the event loop responds"), "the signal is noticed")
    engine.open_gate(f"block-{process_id}")
    assert program.exit_code() == 0
    assert engine.value("SELECT count(*) FROM consumers") == 0


def test_a_step_that_blocks_the_loop_beyond_its_timeout_ends_its_consumer_and_is_failed_with_what_was_seen(
    installations: MakeInstallation,
) -> None:
    """B5, B8: only the end of the program ends such a step. Its neighbour runs again; it does so in a child that it ends too."""
    engine = installations(**IMPATIENT, ORCHESTRATOR_MAX_LOST_ATTEMPTS="1")
    engine.coordinator().ready()
    consumer = engine.consumer().ready()
    neighbour = engine.start("holds")
    engine.wait_for_note(neighbour, "held")
    blocking = engine.start("blocks_for_ever")
    engine.wait_for_note(blocking, "blocking")
    assert consumer.exit_code(60) == 70
    (said,) = logged(consumer, "event loop blocked beyond the deadline of a call")
    assert said["process_id"] == str(blocking)
    engine.open_gate(f"hold-{neighbour}")
    second = engine.consumer().ready()
    engine.wait_for(neighbour, "completed")
    engine.wait_for(blocking, "failed")
    assert second.runs
    lost = engine.log(neighbour, "attempt lost")[0].note
    assert lost is not None
    assert "its event loop had been blocked for" in lost
    assert "by the step 'Block for ever' of 'blocks_for_ever' at" in lost
    failure = engine.log(blocking, "Block for ever")[-1].failure
    assert failure is not None
    assert failure["type"] == "ConsumerLostError"
    assert "ended itself, because its event loop was blocked for" in failure["message"]
    assert "by the step 'Block for ever' of 'blocks_for_ever' at" in failure["message"]
