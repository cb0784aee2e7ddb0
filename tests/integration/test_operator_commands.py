"""The command line for operators: pause, notes, deletion, many processes at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project, register_flows


@pytest.fixture
async def cli(database: Database, database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    await register_flows(database)
    return project(tmp_path, database_url, amqp_url)


def test_nothing_starts_while_the_engine_is_paused(cli: Cli) -> None:
    assert "PAUSED" in cli("pause", "--reason", "the IMS is upgraded", "--user", "ana").stdout
    assert "paused" in cli("start", "ask", code=1).stderr
    assert re.search(r"; paused by ana at [-\d]+ [:\d]+: the IMS is upgraded\n", cli("status").stdout)
    status = cli.json("status")
    assert (status["status"], status["changed_by"], status["reason"]) == ("PAUSED", "ana", "the IMS is upgraded")
    unpaused = cli.json("unpause", "--user", "bob")
    assert (unpaused["status"], unpaused["running"], unpaused["changed_by"], unpaused["reason"]) == (
        "RUNNING",
        0,
        "bob",
        None,
    )
    cli("start", "ask")


def test_a_note_is_shown_and_listed_and_only_a_finished_task_is_deleted(cli: Cli) -> None:
    process_id = cli.start("ask")
    assert "noted" in cli("note", process_id, "ticket 4711", "--user", "ana").stdout
    assert re.search(r"note +ticket 4711  \(ana, ", cli("show", process_id).stdout)
    (listed,) = cli.json("list")
    assert (listed["note"], listed["noted_by"]) == ("ticket 4711", "ana")
    assert cli.json("note", process_id, "") == {"process_id": process_id, "note": None}
    refused = cli.json("delete", process_id, code=1)
    assert (refused["error"], "is no task" in refused["detail"]) == ("InvalidInputError", True)


async def test_the_parent_of_a_process_is_shown_and_listed(cli: Cli, database: Database) -> None:
    process_id, parent = cli.start("ask"), str(uuid4())
    assert "parent" not in cli("show", process_id).stdout
    await database.pool.execute("UPDATE processes SET parent_id = $1", parent)
    assert f"parent    {parent}" in cli("show", process_id).stdout
    assert (cli.json("show", process_id)["parent_id"], cli.json("list")[0]["parent_id"]) == (parent, parent)


async def test_times_are_those_of_the_computers_zone_or_of_utc(cli: Cli, database: Database) -> None:
    process_id = cli.start("ask")
    await database.pool.execute("UPDATE processes SET started_at = '2026-01-31T23:30:00Z', updated_at = now()")
    there = replace(cli, environment={**cli.environment, "TZ": "Asia/Tokyo"})
    assert "2026-02-01 08:30:00" in there("list").stdout
    for command in (("list",), ("show", process_id)):
        assert "2026-01-31 23:30:00" in there("--utc", *command).stdout
    assert there.json("list")[0]["started_at"].startswith("2026-01-31T23:30:00")


def test_many_processes_are_aborted_at_once_after_a_question(cli: Cli) -> None:
    started = {cli.start("ask") for _ in range(2)}
    other = cli.start("sleep")
    cli("bulk", "abort", code=1)
    assert "this would abort 2 of 2 processes: repeat it with --yes" in (
        cli("bulk", "abort", "--workflow", "ask", "--since", "1h", code=1).stderr
    )
    assert "2 of 2 processes aborted" in (
        cli("bulk", "abort", "--workflow", "ask", "--yes", "--reason", "ordered again", "--user", "ana").stdout
    )
    assert {one["process_id"] for one in cli.json("list", "--status", "aborted")} == started
    entry = cli.json("show", started.pop())["log"][-1]
    assert (entry["author"], entry["note"]) == ("ana", "ordered again")
    assert cli.json("bulk", "retry", "--task", "--yes") == {"matched": 0, "done": 0, "refusals": [], "left": 0}
    assert "is no time such as" in cli("bulk", "retry", "--since", "yesterday", code=2).stderr
    assert cli.json("show", other)["status"] == "running"


def test_a_process_is_taken_back_to_a_step_with_a_reason(cli: Cli) -> None:
    with cli.program("dev"):
        cli("start", "stumble", "--wait", code=1)
        short = cli.json("list")[0]["process_id"][:8]
        again = cli("rewind", short, "Note", "--reason", "ask again", "--wait", code=1)
        assert "rewound" in again.stdout
        log = cli.json("show", short)["log"]
    assert [(one["name"], one["try"]) for one in log if one["consumer"]] == [
        ("Note", 1),
        ("Stumble", 1),
        ("Note", 2),
        ("Stumble", 2),
    ]
    assert "Missing option '--reason'" in cli("rewind", short, "Note", code=2).stderr
    assert "has no step 'Nowhere'; its steps are 'Start', 'Note'" in (
        cli("rewind", short, "Nowhere", "--reason", "x", code=1).stderr
    )
    assert (
        "rewound; it is now running" in cli("rewind", short, "Note", "--reason", "wrong order", "--user", "ana").stdout
    )
    entry = cli.json("show", short)["log"][-1]
    assert (entry["name"], entry["author"], entry["removed"]) == ("rewound", "ana", ["noted"])
