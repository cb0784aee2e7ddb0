"""Steps run in the order written, and everything that happens can be read afterwards."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from tests.acceptance.installation import Installation
from tests.acceptance.workflows.basic import LINKS


def test_steps_run_in_the_order_written_each_after_the_commit_of_the_one_before(engine: Installation) -> None:
    """B3: step N sees N committed rows of its predecessors and starts after the end of step N-1."""
    process_ids = [engine.start("chain") for _ in range(5)]
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
        assert engine.effects(process_id) == [f"Link {n}" for n in range(LINKS)]
        assert [one["what"] for one in engine.journal(process_id)] == [f"link {n}" for n in range(LINKS)]
        state = engine.state(process_id)
        assert [state[f"seen_{n}"] for n in range(LINKS)] == list(range(LINKS))
        steps = engine.log(process_id, kind="step")
        assert [(one.name, one.status) for one in steps] == [
            ("Start", "success"),
            *((f"Link {n}", "success") for n in range(LINKS)),
            ("Done", "complete"),
        ]
        for before, after in pairwise(steps):
            assert before.finished_at <= after.started_at or after.name == "Done"


def test_the_log_numbers_every_entry_and_its_deltas_fold_to_the_state(engine: Installation) -> None:
    """B1: no gaps, and the state at any step can be reconstructed."""
    process_id = engine.finish("three_steps", {"name": "ams-1"})
    log = engine.log(process_id)
    assert [one.sequence for one in log] == list(range(1, len(log) + 1))
    folded: dict[str, Any] = {}
    after: dict[str, dict[str, Any]] = {}
    for one in log:
        folded |= one.delta
        after[one.name] = dict(folded)
    assert after["created"] == {"name": "ams-1"}
    assert after["Second"] == {"name": "ams-1", "first": 1, "second": 2}
    assert folded == engine.state(process_id) == {"name": "ams-1", "first": 1, "second": 2, "third": 3}
    assert log[[one.name for one in log].index("Second")].delta == {"second": 2}, "a delta, not the whole state"


def test_finished_steps_are_never_run_again_by_a_retry(engine: Installation) -> None:
    """B3: only the failed step runs again."""
    process_id = engine.finish("mended", status="failed")
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")
    assert [one["what"] for one in engine.journal(process_id)] == ["prepare", "try", "try", "afterwards"]


def test_the_audit_trail_names_who_did_what_and_when(engine: Installation) -> None:
    """B1: who started it, and each attempt's name, status, author, start, end, delta and error, on the command line."""
    process_id = engine.start("mended", user="alice")
    engine.wait_for(process_id, "failed")
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id, user="bob")
    engine.wait_for(process_id, "completed")

    shown = engine.json("show", str(process_id), "--state")
    assert shown["started_by"] == "alice"
    assert shown["status"] == "completed"
    assert shown["workflow"] == "mended"
    assert shown["state"] == engine.state(process_id)
    log = {(one["name"], one["status"]): one for one in shown["log"]}
    tried = log["Break until mended", "failed"]
    assert tried["author"] == "alice"
    assert datetime.fromisoformat(tried["started_at"]) <= datetime.fromisoformat(tried["finished_at"])
    assert tried["failure"]["type"] == "ProcessFailureError"
    assert tried["failure"]["message"] == "the node does not answer"
    assert tried["failure"]["details"] == {"node": "ams-1"}
    assert "break_until_mended" in tried["failure"]["traceback"]
    assert tried["delta"] == {}
    again = log["Break until mended", "success"]
    assert again["author"] == log["Afterwards", "success"]["author"] == "bob"
    assert again["delta"].keys() == {"mended"}
    assert again["failure"] is None
    assert log["retried", "running"]["author"] == "bob"

    listed = engine.json("list", "--workflow", "mended", "--status", "completed")
    assert str(process_id) in [one["process_id"] for one in listed]


def test_a_state_of_the_past_can_be_shown(engine: Installation) -> None:
    """B1: what the process knew after any entry of its log."""
    process_id = engine.finish("three_steps", {"name": "ams-1"})
    sequence = engine.log(process_id, "First")[0].sequence
    shown = engine.json("show", str(process_id), "--at", str(sequence))
    assert shown["state"] == {"name": "ams-1", "first": 1}


def test_steps_run_exactly_once_when_nothing_goes_wrong(engine: Installation) -> None:
    """B3: no spurious second run of any step, with several processes at once."""
    process_ids = [engine.start("steady") for _ in range(10)]
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
        assert [one["what"] for one in engine.journal(process_id)] == ["beat 0", "beat 1", "beat 2"]
        assert [one.attempt for one in engine.log(process_id, kind="step")][1:4] == [1, 2, 3]


def test_a_workflow_of_one_step_and_a_task_run(engine: Installation) -> None:
    """B37, B12: no markers are needed; a task runs on its own queue."""
    process_id = engine.finish("one_step")
    assert [(one.name, one.status) for one in engine.log(process_id)] == [
        ("created", "created"),
        ("running", "running"),
        ("First", "success"),
        ("completed", "completed"),
    ]
    task_id = engine.finish("task_one")
    assert engine.value("SELECT is_task FROM processes WHERE process_id = $1", task_id) is True
