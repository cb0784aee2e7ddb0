"""Large and wrong messages from outside: what answers, logs and memory they cost, and what other work notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.acceptance.client import COMMANDS
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Program
from tests.acceptance.waiting import until

MIB = 1024 * 1024


def peak_memory(program: Program) -> int:
    """Return the most memory that a program has had, in bytes."""
    status = Path(f"/proc/{program.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def test_a_start_with_90000_unknown_fields_gets_a_small_refusal_and_costs_others_little(
    installations: MakeInstallation,
) -> None:
    """The answer had 10.7 MB, the log line 3.6 MB; twelve took 2 GB and 24 s of all other work."""
    engine = installations()
    coordinator = engine.coordinator()
    engine.consumer().ready()
    coordinator.ready()
    engine.client.listen()
    before = peak_memory(coordinator)
    wrong = {f"f{number}": 1 for number in range(90_000)}
    start = {"workflow": "three_steps", "inputs": [{"name": "ams-1", **wrong}], "user": "crm"}
    body = json.dumps(start, separators=(",", ":")).encode()
    assert 0.9 * MIB < len(body) < MIB
    for _ in range(12):
        engine.client.send(COMMANDS, "workflow.start", body)
    engine.finish("one_step")
    answer = engine.client.ask("workflow.start", body)
    assert (answer.type, answer.body["error"]) == ("workflow.refused", "InvalidInputError")
    assert answer.body["reasons"][-1]["msg"] == "and 89,950 more"
    assert len(answer.raw) < 20_000
    assert max(map(len, coordinator.output().splitlines())) < 20_000
    assert peak_memory(coordinator) - before < 250 * MIB


def test_messages_of_20_mb_are_refused_and_only_their_beginning_is_kept(own: Installation) -> None:
    """Where the broker has no limit, eight took 376 MB."""
    coordinator = own.programs[0]
    before = peak_memory(coordinator)
    body = b'{"workflow": "one_step"}' + b" " * (20 * MIB)
    for _ in range(8):
        answer = own.client.ask("workflow.start", body)
        assert f"the message has {len(body)} bytes; at most 1048576 are read" in answer.body["detail"]

    def kept() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = own.json("dead-letters", "list")
        return found if len(found) == 8 else []

    letters = until(kept, "eight letters are kept")
    assert {one["size"] for one in letters} == {MIB}
    own.finish("one_step")
    assert peak_memory(coordinator) - before < 100 * MIB
