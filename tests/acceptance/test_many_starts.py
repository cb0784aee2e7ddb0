"""A step that starts many processes, in programs that are killed."""

from __future__ import annotations

from uuid import UUID

from tests.acceptance.chaos import all_done, exactly_once
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

NUMBER = 200
CHILDREN = "SELECT process_id FROM processes WHERE parent_id = $1"


def children(engine: Installation, parent: UUID) -> list[UUID]:
    return [row["process_id"] for row in engine.query(CHILDREN, parent)]


def all_ran_once(engine: Installation, parent: UUID, number: int, seconds: float = 120) -> None:
    """Wait until every child has run; none may be missing, none there twice, and nobody may have looked for one in vain."""
    engine.wait_for(parent, "completed")
    found = children(engine, parent)
    assert len(found) == number
    all_done(engine, found, seconds)
    rows = engine.query("SELECT step, count(*) FROM effects WHERE process_id = ANY($1) GROUP BY 1", found)
    assert sorted((row["step"], row["count"]) for row in rows) == sorted((f"Row {one}", 1) for one in range(number))
    assert "there is no process" not in engine.logs()
    exactly_once(engine)


def test_a_consumer_that_is_killed_while_its_step_starts_processes_leaves_none_and_the_next_starts_each_once(
    installations: MakeInstallation,
) -> None:
    """B16: first half of them are stored and not committed; then all are committed, and nobody is left to say so."""
    engine = installations(ORCHESTRATOR_PRESUMED_DEAD_AFTER="2")
    coordinator = engine.coordinator().ready()
    consumer = engine.consumer().ready()
    parent = engine.start("task_starts_many", {"number": NUMBER})
    engine.wait_for_note(parent, "half")
    consumer.kill()
    assert children(engine, parent) == []
    consumer = engine.consumer().ready()
    engine.wait_for_note(parent, "half", 2)
    coordinator.kill()
    engine.open_gate(f"start-{parent}")
    until(lambda: len(children(engine, parent)) == NUMBER, "the step commits without a coordinator")
    consumer.kill()
    assert engine.value("SELECT count(*) FROM effects") == 0
    engine.coordinator().ready()
    engine.consumer().ready()
    all_ran_once(engine, parent, NUMBER)
    assert engine.state(parent)["result"] == {
        "started": NUMBER - NUMBER // 2,
        "already_there": NUMBER // 2,
        "refused": {},
        "examples": {},
    }
