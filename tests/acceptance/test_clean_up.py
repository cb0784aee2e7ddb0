"""Finished tasks go when their time is over; workflows stay."""

from __future__ import annotations

from tests.acceptance.installation import Installation
from tests.acceptance.waiting import until

AGE = "UPDATE processes SET updated_at = now() - $2::int * interval '1 hour' WHERE process_id = ANY($1)"
UNCONFIRMED = "SELECT count(*) FROM processes WHERE process_id = ANY($1) AND announced < sequence"


def test_a_clean_up_deletes_the_tasks_that_ended_more_than_three_days_ago(engine: Installation) -> None:
    """B15: ``task_clean_up_tasks``; with their log, and in the counts of its state. Workflows stay, however old they are."""
    old, recent = engine.finish("task_one"), engine.finish("task_one")
    work = engine.finish("one_step")
    until(lambda: engine.value(UNCONFIRMED, [old, recent, work]) == 0, "it is written down that their events have left")
    engine.write(AGE, [old, work], 24 * 3 + 1)
    engine.write(AGE, [recent], 24 * 3 - 1)

    clean_up = engine.finish("task_clean_up_tasks")

    left = "SELECT array_agg(process_id ORDER BY started_at) FROM processes WHERE process_id = ANY($1)"
    assert engine.value(left, [old, recent, work]) == [recent, work]
    assert engine.value("SELECT count(*) FROM process_steps WHERE process_id = $1", old) == 0
    assert engine.json("show", str(clean_up), "--state")["state"]["deleted_by_workflow"] == {"task_one": 1}
    assert "there is no process" in engine.command("show", str(old), exit_code=1).stderr
