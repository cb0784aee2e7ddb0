"""What operators are told when a step's queue has no reader, or a consumer is dead; by the real commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection

from orchestrator.db.registration import register_workflow
from orchestrator.db.session import Database
from tests.integration.cli_servers import FLOWS, Cli, project

ASIDE = """
@step("Configure", queue="configuration")
def configure() -> None: ...

@workflow("Runs in a queue of its own")
def aside() -> StepList:
    return init >> configure >> done

LazyWorkflowInstance("flows", "aside")
"""
STATUS = """
import contextlib, json, sys
from orchestrator.cli import main
with contextlib.suppress(SystemExit):
    main(["status", "--json"])
print(json.dumps(sorted(sys.modules)))
"""
QUEUE = "orchestrator.steps.configuration"


@pytest.fixture
async def cli(database: Database, database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    def register(connection: Connection) -> None:
        for name in (*FLOWS, "aside"):
            register_workflow(connection, name=name, target="SYSTEM", description=name)

    async with database.engine.begin() as connection:
        await connection.run_sync(register)
    made = project(tmp_path, database_url, amqp_url)
    (tmp_path / "flows.py").write_text((tmp_path / "flows.py").read_text() + ASIDE)
    return made


def test_a_queue_that_nobody_reads_is_shown_with_what_to_start(cli: Cli) -> None:
    """B41."""
    assert QUEUE not in {one["name"] for one in cli.json("status")["queues"]}, "nobody has needed it yet"
    with cli.program("dev", "--queue", "default", "--queue", "tasks"):
        cli.until(cli.is_reading)
        with cli.program("start", "aside", "--wait"):
            hint = "no consumer reads the queue 'configuration': 'orchestrator consumer --queue configuration'"
            cli.until(lambda: hint in (cli.folder / "start.log").read_text())
        process = cli.json("list")[0]["process_id"]

        status = cli.json("status")
        (queue,) = [one for one in status["queues"] if one["name"] == QUEUE]
        assert (queue["ready"], queue["consumers"]) == (1, 0)
        (unclaimed,) = status["unclaimed"]
        assert (unclaimed["workflow"], unclaimed["step"], unclaimed["queue"], unclaimed["processes"]) == (
            "aside",
            "Configure",
            "configuration",
            1,
        )
        told = cli("status").stdout
        assert f"no consumer reads {QUEUE}: start 'orchestrator consumer --queue configuration'" in told
        assert cli.json("show", process)["queue"] == "configuration"
        assert hint in cli("show", process).stdout

        elsewhere = cli("status", ORCHESTRATOR_WORKFLOWS="").stdout
        assert re.search(
            "1 process stands at 'Configure' of 'aside', for .* this program does not know that step", elsewhere
        )
        (cli.folder / "flows.py").write_text("1 / 0")
        assert "'Configure' of 'aside'" in cli("status").stdout


def test_one_program_for_development_reads_every_queue_that_its_workflows_name(cli: Cli) -> None:
    with cli.program("dev"):
        cli.until(cli.is_reading)
        cli("start", "aside", "--wait")


async def test_a_consumer_that_is_presumed_dead_is_called_so(cli: Cli, database: Database) -> None:
    await database.pool.execute(
        "INSERT INTO consumers (consumer_id, name, queues, concurrency, seen_at)"
        " VALUES (gen_random_uuid(), 'gone:1', '{default}', 5, now() - interval '2 minutes')"
    )
    assert re.search(r"gone:1 .* 2 min \d\d s ago: presumed dead", cli("status").stdout)


def test_workflows_of_a_broken_module_are_called_broken_and_their_error_is_reported_once(cli: Cli) -> None:
    """B13."""
    (cli.folder / "broken.py").write_text("from pydantic import BaseModel\nclass A(BaseModel):\n    x: int\nA(x='no')")
    with (cli.folder / "flows.py").open("a") as flows:
        flows.write("for name in ('one', 'two'):\n    LazyWorkflowInstance('broken', name)\n")
    shown = cli("workflows", code=1)
    assert [line.split()[2] for line in shown.stdout.splitlines() if line.startswith(("one ", "two "))] == [
        "broken"
    ] * 2
    (told,) = cli.said(shown)
    assert told.startswith("broken: the module 'broken' cannot be imported: ValidationError: ")
    assert "errors.pydantic.dev" not in told


def test_a_list_of_the_processes_of_a_workflow_that_nobody_knows_is_refused(cli: Cli) -> None:
    assert cli.json("list", "--workflow", "ask") == []
    assert "the database knows no workflow 'aks'" in cli("list", "--workflow", "aks", code=1).stderr


def test_whoever_looks_at_a_process_whose_input_step_is_gone_learns_what_to_do(cli: Cli) -> None:
    with cli.program("dev"):
        cli.until(cli.is_reading)
        cli("start", "ask", "--wait", code=3)
    process = cli.json("list")[0]["process_id"]
    written = (cli.folder / "flows.py").read_text()
    (cli.folder / "flows.py").write_text(written.replace('"Approve"', '"Agree"'))
    assert "this program has the unregistered plan" in cli("show", process).stderr
    with cli.program("dev"):
        cli.until(cli.is_reading)
    shown = cli("show", process)
    assert "Bring the step back under this name and resume, or abort" in shown.stderr
    assert "continue with" not in shown.stdout
    assert "and resume, or abort" in cli("resume", process, "--input", '{"approved": true}', code=1).stderr
    assert "waits for input: resume it" in cli("retry", process, code=1).stderr

    (cli.folder / "flows.py").write_text(written)
    assert cli.json("resume", process, "--input", '{"approved": true}')["status"] == "completed"


def test_status_without_workflows_imports_neither_sqlalchemy_nor_domain_models(cli: Cli) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STATUS],
        env=cli.environment | {"ORCHESTRATOR_WORKFLOWS": ""},
        cwd=cli.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    shown, _, imported = done.stdout.rstrip().rpartition("\n")

    assert {queue["exists"] for queue in json.loads(shown)["queues"]} == {False}
    assert set(json.loads(imported)) & {"sqlalchemy", "alembic", "pydantic_forms", "orchestrator.domain"} == set()
    assert len(json.loads(imported)) <= 690
