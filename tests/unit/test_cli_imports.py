"""What a command imports: the time until it answers is the time of its imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from orchestrator.cli import app
from orchestrator.cli.commands import LazyCommand

RUN = """
import contextlib, gc, io, json, sys
from orchestrator.cli import main
silent = io.StringIO()
with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(json.dumps({"modules": sorted(sys.modules), "collects": gc.isenabled(), "frozen": gc.get_freeze_count()}))
"""

NO_SERVERS = {
    "ORCHESTRATOR_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "ORCHESTRATOR_AMQP_URL": "amqp://nobody@127.0.0.1:1/none",
}

MIGRATING = {"alembic", "mako"}
BROKER = {"aio_pika", "aiormq", "pamqp"}
SERVERS = {"asyncpg", "sqlalchemy", *BROKER, *MIGRATING}
FORMS = {"pydantic_forms", "email_validator"}


# The ceilings leave room: releases of Python differ in what the standard library imports, 3.11.2 in a module more than 3.11.7.
@pytest.mark.parametrize(
    ("command", "forbidden", "ceiling"),
    [
        ("--version", {"rich", "pydantic", "structlog", "asyncio", *SERVERS}, 180),
        ("--help", {"pydantic", "structlog", "asyncio", *SERVERS}, 350),
        ("db --help", {"structlog", *SERVERS}, 450),
        ("port --help", {"libcst", *SERVERS}, 560),
        ("list", {"sqlalchemy", "orchestrator.domain", "uvloop", *BROKER, *MIGRATING, *FORMS}, 520),
        ("show 00000000", {"orchestrator.domain", "uvloop", *BROKER, *MIGRATING, *FORMS}, 720),
        ("status", {"sqlalchemy", "orchestrator.domain", "uvloop", *BROKER, *MIGRATING, *FORMS}, 560),
        ("coordinator", {"consumers", *MIGRATING}, 1040),
        ("consumer", {"orchestrator.coordinator", *MIGRATING}, 980),
    ],
)
def test_a_command_imports_only_what_it_needs(command: str, forbidden: set[str], ceiling: int) -> None:
    imported = set(run_command(command)["modules"])

    assert imported & forbidden == set()
    assert len(imported) <= ceiling


@pytest.mark.parametrize("command", ["list", "list --no-such-option"])
def test_the_garbage_collector_runs_in_a_command_but_not_over_what_was_imported(command: str) -> None:
    after = run_command(command)

    assert after["collects"]
    assert after["frozen"] > 10_000


def run_command(command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *command.split()],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | NO_SERVERS,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lazy_commands(group: TyperGroup, path: str = "") -> list[Any]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found += lazy_commands(command, f"{path}{name} ")
        else:
            found.append(pytest.param(command, id=f"{path}{name}"))
    return found


@pytest.mark.parametrize("listed", lazy_commands(typer.main.get_group(app)))
def test_the_table_of_commands_says_what_the_commands_say(listed: LazyCommand) -> None:
    real = listed.load()

    first, _, _ = real.help.partition("\n\n")
    assert listed.help == " ".join(first.split())
    assert (listed.name, listed.rich_help_panel) == (real.name, real.rich_help_panel)
