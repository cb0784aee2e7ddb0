"""Messages that nobody can make sense of: each becomes a dead letter with its reason, and the engine goes on."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from tests.acceptance.client import COMMANDS, Received
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

START = "workflow.start"
MAX_MESSAGE_BYTES = 1024 * 1024
STEPS, RESULTS = "orchestrator.steps", "orchestrator.results"
COMMAND = {"process_id": str(uuid4()), "workflow": "one_step", "step": "First", "position": 0, "attempt": 0}


def letter_after(engine: Installation, exchange: str, key: str, body: bytes, kind: str | None = None) -> Received:
    """Send a message and wait for the dead letter that it becomes."""
    before = len(engine.client.dead_letters())
    engine.client.send(exchange, key, body, kind=kind)

    def found() -> list[Received]:
        # Letters of messages before this one may come late.
        return [one for one in engine.client.dead_letters()[before:] if one.raw == body[:MAX_MESSAGE_BYTES]]

    return until(found, f"a dead letter for {body[:80]!r}")[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"not json", "the body is not JSON"),
        (b"\xff\xfe\x00", "the body is not JSON"),
        (b"[1]", "the body is not a valid StartWorkflow"),
        (b'"text"', "the body is not a valid StartWorkflow"),
        (b"{}", "workflow: Field required"),
        (b'{"workflow": "one_step", "version": 2}', "unknown message version: this engine knows version 1"),
        (b'{"workflow": "one_step", "imputs": []}', "imputs: Extra inputs are not permitted"),
        (b'{"workflow": "one_step", "inputs": {"name": 1}}', "inputs: Input should be a valid array"),
        (b'{"workflow": 5}', "workflow: Input should be a valid string"),
        (b'{"workflow": ""}', "workflow: String should have at least 1 character"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"workflow": "one_step"}' + b" " * 2_000_000, "the message has 2000024 bytes; at most 1048576 are read"),
        (b'{"workflow": "os.system", "user": "mallory"}', "neither in the code nor in the database"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_a_start_that_cannot_be_understood_is_a_dead_letter(engine: Installation, body: bytes, reason: str) -> None:
    """B41: the reason in words, the body unchanged as far as it is read, where it came from; and no process."""
    before = engine.value("SELECT count(*) FROM processes")
    letter = letter_after(engine, COMMANDS, START, body)
    assert reason in letter.headers["x-reason"]
    assert letter.headers["x-queue"] == "orchestrator.commands"
    assert engine.value("SELECT count(*) FROM processes") == before


def test_a_sender_who_asks_for_an_answer_hears_what_was_wrong(engine: Installation) -> None:
    """B39: also for a message that is not a start at all."""
    answer = engine.client.ask(START, {"workflow": "one_step", "version": 99})
    assert answer.type == "workflow.refused"
    assert answer.body["error"] == "MessageError"
    assert "unknown message version" in answer.body["detail"]
    assert engine.client.ask(START, b"nonsense").body["error"] == "MessageError"
    too_large = engine.client.ask(START, b'{"workflow": "one_step"}' + b" " * 2_000_000)
    assert (too_large.type, too_large.body["error"]) == ("workflow.refused", "MessageError")
    assert "the message has 2000024 bytes; at most 1048576 are read" in too_large.body["detail"]
    too_much = engine.client.ask(START, {"workflow": "one_step", "inputs": [{"name": "x"}]})
    assert too_much.body["error"] == "InvalidInputError"
    assert "has no form, but input was sent" in too_much.body["detail"]


@pytest.mark.parametrize(
    ("exchange", "key", "kind", "body", "reason"),
    [
        (STEPS, "default", START, {"workflow": "one_step"}, "takes messages of type 'step.command'"),
        (STEPS, "default", None, COMMAND, "takes messages of type 'step.command', not None"),
        (STEPS, "default", "step.command", {"workflow": "one_step"}, "the body is not a valid StepCommand"),
        (STEPS, "default", "step.command", COMMAND | {"version": 7}, "unknown message version"),
        (RESULTS, "result", START, {"workflow": "one_step"}, "takes no messages of type 'workflow.start'"),
        (RESULTS, "result", "step.result", {"status": "completed"}, "the body is not a valid Advanced"),
        (RESULTS, "result", "process.look", {"process_id": "me"}, "the body is not a valid Look"),
        (COMMANDS, "process.resume", None, {"process_id": "1"}, "process_id: Input should be a valid UUID"),
        (COMMANDS, "process.abort", None, {"process_id": str(uuid4())}, "there is no process"),
    ],
)
def test_a_message_in_the_wrong_place_is_a_dead_letter(
    engine: Installation, exchange: str, key: str, kind: str | None, body: object, reason: str
) -> None:
    """B41: our own queues, too, take only what belongs there."""
    letter = letter_after(engine, exchange, key, json.dumps(body).encode(), kind)
    assert reason in letter.headers["x-reason"]
    assert letter.type == (kind or None)


def test_commands_for_processes_that_are_not_there_are_forgotten(engine: Installation) -> None:
    """B41: a stale step command or look request of a deleted process is no error; nothing comes back for ever."""
    before = len(engine.client.dead_letters())
    engine.client.send(STEPS, "default", COMMAND, kind="step.command")
    engine.client.send(STEPS, "default", COMMAND | {"workflow": "unheard_of"}, kind="step.command")
    engine.client.send(RESULTS, "result", {"process_id": COMMAND["process_id"]}, kind="process.look")
    engine.finish("one_step")

    def ready() -> int:
        queues = {one["name"]: one["ready"] for one in engine.json("topology", "show")["queues"]}
        return int(queues["orchestrator.steps.default"] + queues["orchestrator.results"])

    until(lambda: ready() == 0, "the queues are empty")
    assert len(engine.client.dead_letters()) == before


def test_the_engine_works_after_all_of_that(engine: Installation) -> None:
    """B41: both programs live, and a start goes through every queue."""
    assert all(program.runs for program in engine.programs)
    process_id = engine.finish("three_steps", {"name": "still here"})
    assert engine.effects(process_id) == ["Second"]
