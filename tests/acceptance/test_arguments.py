"""Parameters come from the state by name and annotation; what is returned is merged over it."""

from __future__ import annotations

from uuid import uuid5

import pytest

from tests.acceptance.installation import Installation


def test_parameters_are_filled_by_name_and_annotation(engine: Installation) -> None:
    """B32: every kind of value travels through the JSON state and arrives as what the author asked for."""
    process_id = engine.finish("many_arguments")
    state = engine.state(process_id)
    assert state["kinds"] == {
        "text": "str",
        "number": "int",
        "ratio": "float",
        "identifier": "UUID",
        "colour": "Colour",
        "speed": "Speed",
        "day": "date",
        "moment": "datetime",
        "address": "IPv4Address",
        "port": "Port",
        "ports": "list",
        "node": "Node",
        "numbers": "list",
        "untyped": "dict",
        "nothing": "NoneType",
        "absent": "NoneType",
        "defaulted": "int",
    }
    assert state["values"] == ["dåta ✓ \U0001f600", 0.5, 142, [1, 2], "2026-01-01", None, 42, None]
    assert state["session_kind"] is True
    assert state["own_id"] == str(process_id)
    assert state["own_key"] == str(uuid5(process_id, "Ask for many things"))
    assert "kinds" not in state["state_keys"]
    assert {"text", "numbers"} <= set(state["state_keys"])
    assert state["from_object"] == 7
    assert state["sum"] == 12


def test_a_value_of_the_wrong_type_or_a_missing_one_fails_the_step_with_a_reason(engine: Installation) -> None:
    """B32: the text names the step, the parameter, its type and what the state has."""
    wrong = engine.finish("wrong_argument", {"value": "seven"}, status="failed")
    (entry,) = engine.log(wrong, "Ask for a number")
    assert entry.failure is not None
    assert entry.failure["type"] == "MissingArgumentError"
    assert "asks for 'value' as int, but the state holds something else" in entry.failure["message"]

    missing = engine.finish("wrong_argument", {"value": "7"}, status="failed")
    assert engine.state(missing)["doubled"] == 14
    (entry,) = engine.log(missing, "Ask for what is not there")
    assert entry.failure is not None
    assert (
        "asks for 'never_set' (int), which the state does not have. It has: doubled, value" in entry.failure["message"]
    )


def test_a_step_cannot_change_the_state_in_place(engine: Installation) -> None:
    """B32: arguments are copies; only what is returned enters the state."""
    process_id = engine.finish("changes_in_place")
    assert engine.state(process_id) == {"items": [1], "same": [1], "changed": True}


def test_plain_functions_run_in_a_thread_while_the_event_loop_stays_live(engine: Installation) -> None:
    """B32: an async step of the same consumer runs to its end while another step blocks its thread."""
    blocking = engine.start("blocks_a_thread")
    engine.wait_for_note(blocking, "blocking")
    ticking = engine.start("ticks")
    engine.wait_for(ticking, "completed")
    assert engine.journal(blocking, "blocked") == []
    (began,), (ticked,) = engine.journal(blocking, "blocking"), engine.journal(ticking, "ticking")
    assert began["pid"] == ticked["pid"], "one consumer ran both"
    engine.open_gate(f"unblock-{blocking}")
    engine.wait_for(blocking, "completed")


@pytest.mark.parametrize("number", [30])
def test_many_plain_functions_block_at_the_same_time(engine: Installation, number: int) -> None:
    """B32: thirty block, and none ends before all have begun."""
    process_ids = [engine.start("blocks_a_thread") for _ in range(number)]
    for process_id in process_ids:
        engine.wait_for_note(process_id, "blocking")
    assert [one for one in process_ids if engine.journal(one, "blocked")] == []
    for process_id in process_ids:
        engine.open_gate(f"unblock-{process_id}")
    for process_id in process_ids:
        engine.wait_for(process_id, "completed")
