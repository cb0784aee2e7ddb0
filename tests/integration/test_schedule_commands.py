"""``orchestrator schedules …``: what people type, read and get back."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project, register_flows

NO_BROKER = "amqp://u:hidden@127.0.0.1:1/x"
PAGES = ("--input", '{"name": "it\'s ann"}', "--input", '{"tone": "kind"}')
DECLARED = """
from datetime import timedelta
from orchestrator.workflows import Schedule

Schedule("of the code", "ask", every=timedelta(days=7), note="declared")
"""


@pytest.fixture
async def cli(database: Database, database_url: str, tmp_path: Path) -> Cli:
    await register_flows(database)
    return project(tmp_path, database_url, NO_BROKER)


def test_a_schedule_from_its_first_day_to_its_last(cli: Cli) -> None:
    at_night = ("--cron", "30 2 * * *", "--zone", "Europe/Amsterdam")
    added = cli(
        "schedules", "add", "nightly greeting", "greet", *at_night, *PAGES, "--user", "ann", "--note", "why not"
    )
    assert re.fullmatch(r"schedule 'nightly greeting' added; next at [-\d]+ [:\d]+\n", added.stdout)

    (listed,) = cli.json("schedules", "list")
    assert (listed["state"], listed["workflow"], listed["created_by"]) == ("enabled", "greet", "ann")
    assert listed["inputs"] == [{"name": "it's ann"}, {"tone": "kind"}]
    table = cli("schedules", "list").stdout
    assert "cron 30 2 * * *, Europe/Amsterdam" in table
    short = listed["schedule_id"][:8]

    edited = cli.json(
        "schedules", "edit", short, "--zone", "UTC", "--overlap", "queue", "--jitter", "5m", "--user", "bob"
    )
    assert (edited["trigger"]["zone"], edited["overlap"], edited["jitter"]) == ("UTC", "queue", 300)
    assert (edited["note"], edited["inputs"]) == ("why not", listed["inputs"])
    every = cli.json("schedules", "edit", short, "--every", "6h", "--start", "2026-11-25T01:00Z", "--note", "")
    assert (every["trigger"]["seconds"], every["note"]) == (21600, None)

    paused = cli("schedules", "pause", "nightly greeting", "--reason", "holidays", "--user", "bob").stdout
    assert paused == "schedule 'nightly greeting' paused; disabled: paused by bob: holidays\n"
    assert [one["name"] for one in cli.json("schedules", "list", "--disabled")] == ["nightly greeting"]
    assert cli.json("schedules", "list", "--enabled") == []
    assert cli.json("schedules", "resume", "nightly greeting")["state"] == "enabled"

    shown = cli("schedules", "show", "nightly greeting", "-n", "10").stdout
    for text in (
        "every 6h, from 2026-11-25T01:00:00Z",
        "overlap queue, jitter up to 300 s",
        "paused",
        "holidays",
        "it's ann",
    ):
        assert text in shown
    document = cli.json("schedules", "show", "nightly greeting", "-n", "3")
    assert [int(one["at"][11:13]) % 6 for one in document["coming"]] == [1, 1, 1]
    assert [one["action"] for one in document["changes"]] == ["resumed", "paused", "edited"]

    assert cli("schedules", "remove", "nightly greeting").stdout == "schedule 'nightly greeting' removed\n"
    assert "no schedules" in cli("schedules", "list").stdout
    assert cli.json("schedules", "show", short)["state"] == "removed"


def test_what_is_refused_names_the_field_and_stores_nothing(cli: Cli) -> None:
    nightly = ("schedules", "add", "nightly", "ask")
    for arguments, told in (
        ((*nightly, "--cron", "0 25 * * *"), "hour: "),
        ((*nightly, "--cron", "0 3 * * *", "--zone", "Mars"), "zone: "),
        ((*nightly, "--at", "2020-01-01T00:00Z"), "run_date: "),
        ((*nightly, "--cron", "0 3 * * *", "--end", "2020-01-01T00:00Z"), "end_date: "),
        ((*nightly, "--cron", "0 3 * * *", "--missed", "all"), "missed: "),
        ((*nightly, "--every", "5m", "--jitter", "5m"), "jitter: "),
        (("schedules", "add", "nightly", "nothing", "--every", "5m"), "there is no workflow 'nothing'"),
        (("schedules", "add", "nightly", "ask", "--every", "5m", "--input", '{"a": 1}'), "has no form"),
        (("schedules", "edit", "nightly", "--note", "x"), "there is no schedule 'nightly'"),
        (("schedules", "run", "00000000"), "127.0.0.1"),
    ):
        done = cli(*arguments, code=1)
        lines = cli.said(done)
        assert told in done.stderr
        assert len(lines) <= 2, done.stderr
    error = cli.json(*nightly, "--cron", "0 25 * * *", code=1)
    assert (error["error"], error["reasons"][0]["loc"]) == ("InvalidInputError", ["hour"])
    assert cli.json("schedules", "list") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "nightly", "ask"),
        ("add", "nightly", "ask", "--cron", "0 3 * * *", "--every", "5m"),
        ("add", "nightly", "ask", "--every", "5m", "--jitter", "soon"),
        ("add", "nightly", "ask", "--every", "5m", "--overlap", "perhaps"),
        ("add", "nightly", "ask", "--every", "5m", "--input", "[]"),
        ("edit", "nightly"),
        ("edit", "nightly", "--every", "soon"),
        ("run", "nightly", "--key", ""),
    ],
)
def test_wrong_usage_exits_with_two(arguments: tuple[str, ...], tmp_path: Path) -> None:
    project(tmp_path, "postgresql+asyncpg://nobody@127.0.0.1:1/none", NO_BROKER)("schedules", *arguments, code=2)


def test_without_its_pages_the_form_is_shown_with_a_command_to_go_on(cli: Cli) -> None:
    asked = cli("schedules", "add", "a night's greeting", "greet", "--every", "6h", "--disabled", code=1)
    assert "this needs input" in asked.stderr
    assert "name" in asked.stdout
    for page in ('{"name": "ann"}', '{"tone": "kind"}'):
        command = asked.stdout.partition("continue with: ")[2].splitlines()[0]
        words = shlex.split(command)
        assert words[0] == "orchestrator"
        asked = cli(*words[1:-1], page, code=1 if page.startswith('{"name') else 0)
    assert cli.json("schedules", "list")[0]["inputs"] == [{"name": "ann"}, {"tone": "kind"}]


async def test_a_schedule_is_run_by_hand_and_a_declared_one_comes_from_the_coordinator(
    database: Database, database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    await register_flows(database)
    cli = project(tmp_path, database_url, amqp_url)
    flows = tmp_path / "flows.py"
    flows.write_text(flows.read_text() + DECLARED)
    with cli.program("coordinator"):
        cli.until(lambda: "of the code" in {one["name"] for one in cli.json("schedules", "list", "--origin", "code")})
    declared = next(one for one in cli.json("schedules", "list", "--origin", "code") if one["name"] == "of the code")
    assert (declared["note"], declared["state"]) == ("declared", "enabled")
    assert cli.json("schedules", "edit", "of the code", "--note", "mine")["touched"] == ["note"]
    cli("schedules", "remove", "of the code")
    reset = cli.json("schedules", "reset", "of the code")
    assert (reset["note"], reset["touched"], reset["state"]) == ("declared", [], "enabled")

    started = cli.json("schedules", "run", "of the code", "--key", "once", "--user", "ann")
    assert started["created"]
    assert cli.json("schedules", "run", "of the code", "--key", "once") == {**started, "created": False}
    assert "does not let two run at once" in cli("schedules", "run", "of the code", code=1).stderr
    (slot,) = cli.json("schedules", "show", "of the code")["slots"]
    assert (slot["result"], slot["reason"], slot["process_id"]) == ("started", "run by ann", started["process_id"])
    assert json.loads(cli("show", started["process_id"], "--json").stdout)["started_by"] == "ann"


def test_a_declaration_that_cannot_work_stops_the_program_with_one_line(cli: Cli) -> None:
    flows = cli.folder / "flows.py"
    flows.write_text(flows.read_text() + DECLARED.replace("timedelta(days=7)", "timedelta(0)"))
    done = cli("coordinator", code=1)
    assert any("the schedule 'of the code': every: " in line for line in cli.said(done)), done.stderr
    flows.write_text(
        flows.read_text().replace("timedelta(0)", "timedelta(1)").replace('"ask", every', '"nothing", every')
    )
    done = cli("coordinator", code=1)
    assert any("registers no workflow 'nothing'" in line for line in cli.said(done)), done.stderr
