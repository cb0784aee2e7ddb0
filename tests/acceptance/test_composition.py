"""Conditions, groups, shared steps."""

from __future__ import annotations

from uuid import UUID

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation


def outcomes(engine: Installation, process_id: UUID) -> dict[str, str]:
    """Each step's last status."""
    return {one.name: one.status for one in engine.log(process_id, kind="step")}


def test_a_false_condition_skips_its_steps_without_running_them(engine: Installation) -> None:
    """B35: single steps, lists and groups; each skipped step has a row, no consumer, and no author's code ran."""
    process_id = engine.finish("conditions", {"name": "unwanted"})
    assert outcomes(engine, process_id) == {
        "Start": "success",
        "Decide": "success",
        "single": "skipped",
        "listed 1": "skipped",
        "listed 2": "skipped",
        "Change the mind": "skipped",
        "Fail once in the group": "skipped",
        "grouped": "skipped",
        "never": "skipped",
        "Done": "complete",
    }
    assert engine.journal(process_id) == []
    skipped = [one for one in engine.log(process_id) if one.status == "skipped"]
    assert all(one.consumer is None and one.delta == {} for one in skipped)
    assert engine.value("SELECT attempt FROM processes WHERE process_id = $1", process_id) == 1, "one claim in all"


def test_a_condition_is_decided_once_for_a_group_also_across_a_failure(engine: Installation) -> None:
    """B35: the group's first step makes the condition false; the rest of the group runs all the same, after a retry."""
    process_id = engine.finish("conditions", {"name": "wanted"}, status="failed")
    assert engine.state(process_id)["wanted"] is False
    engine.open_gate(f"mended-{process_id}")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")
    found = outcomes(engine, process_id)
    assert found["Fail once in the group"] == found["grouped"] == "success"
    assert found["never"] == "skipped"
    notes = [one["what"] for one in engine.journal(process_id)]
    assert notes == ["single", "listed 1", "listed 2", "change the mind", "fail once", "fail once", "grouped"]


def test_a_condition_may_ask_the_environment(installations: MakeInstallation) -> None:
    """B35: a predicate over nothing."""
    engine = installations(ALLOWED="yes", FORBIDDEN="no")
    for program in (engine.coordinator(), engine.consumer()):
        program.ready()
    process_id = engine.finish("environment")
    assert outcomes(engine, process_id) == {
        "Start": "success",
        "allowed": "success",
        "forbidden": "skipped",
        "Done": "complete",
    }


def test_a_condition_that_raises_fails_the_process_after_its_last_good_step(engine: Installation) -> None:
    """B35: what was done stays; a retry asks the condition again."""
    process_id = engine.finish("raising_condition", {"name": "doubt"}, status="failed")
    assert engine.state(process_id)["before"] is True
    (entry,) = engine.log(process_id, "doubtful")
    assert entry.failure is not None
    assert "the condition of this step raised LookupError: cannot decide" in entry.failure["message"]
    engine.open_gate("mended-doubt")
    engine.retry(process_id)
    engine.wait_for(process_id, "completed")
    assert [one["what"] for one in engine.journal(process_id)] == ["before", "doubtful"]


def test_groups_in_groups_run_in_order_each_step_with_its_own_row(engine: Installation) -> None:
    """B37: a group is a name for its steps."""
    process_id = engine.finish("grouped")
    assert [one.name for one in engine.log(process_id, kind="step")] == ["Start", "a", "b", "c", "d", "e", "Done"]


def test_step_lists_and_factories_are_shared_between_workflows(engine: Installation) -> None:
    """B37: one constant list in two workflows; singledispatch on the class of the injected model."""
    fibre, copper = engine.finish("ports_a"), engine.finish("ports_b")
    assert engine.state(fibre)["description"] == "a yellow fibre"
    assert engine.state(copper)["description"] == "4 pairs of copper"
    assert engine.state(fibre)["common"] is engine.state(copper)["common"] is True
