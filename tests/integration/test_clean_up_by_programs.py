"""B15: the clean-up that ships, started by a person and run by the programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.db.session import Database
from tests.integration.cli_servers import project
from tests.integration.finished_tasks import add

TASK = "task_clean_up_tasks"


def test_status_shows_that_a_clean_up_is_late_and_the_task_that_ships_puts_it_right(
    tmp_path: Path, database_url: str, amqp_url: str
) -> None:
    cli = project(tmp_path, database_url, amqp_url)
    assert cli.json("status")["expired_tasks"] == []
    asyncio.run(_fill(database_url))
    (late,) = cli.json("status")["expired_tasks"]
    assert late["workflow"] == TASK
    assert 86_400 * 3 <= late["expired_for"] < 86_400 * 3 + 3600
    (records,) = cli.json("status")["expired_records"]
    assert (records["table"], records["expired_for"] // 86_400) == ("deleted_processes", 35)
    assert "rows of deleted_processes have been past their time for 84" in " ".join(cli("status").stdout.split())
    assert f"finished tasks of '{TASK}' have been past their time for 72 h 0" in " ".join(cli("status").stdout.split())

    with cli.program("coordinator"), cli.program("consumer"):
        done = cli.json("start", TASK, "--wait")

    assert done["status"] == "completed"
    state = cli.json("show", done["process_id"], "--state")["state"]
    assert state["deleted_by_workflow"] == {TASK: 120}
    assert state["deleted_records"] == {"schedule_slots": 0, "deleted_processes": 1}
    assert [one["process_id"] for one in cli.json("list")] == [done["process_id"]]
    status = cli.json("status")
    assert (status["expired_tasks"], status["expired_records"]) == ([], [])
    assert "past their time" not in cli("status").stdout


async def _fill(url: str) -> None:
    database = Database(url, pool_size=2, connect_timeout=30, application_name="tests")
    await database.open()
    await add(database, 120, workflow=TASK, days=6)
    await database.pool.execute(
        "INSERT INTO deleted_processes SELECT gen_random_uuid(), 'some', 'completed', 'me', now(), 'me',"
        " now() - 400 * interval '24 hours'"
    )
    await database.close()
