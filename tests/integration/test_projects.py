"""What the command line says of a user's project that is not as it should be: forgotten settings, and what is written for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project
from tests.integration.test_migrating_models import MODELS, ROLES, migrate, subscribe

LOADED = MODELS.replace("    ims_id: int | None = None\n", "    site_id: int | None = None\n").replace(
    "    node_name: str\n", "    node_name: str\n    site_id: int\n"
)


@pytest.fixture
def cli(database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    made = project(tmp_path, database_url, amqp_url)
    (tmp_path / "flows.py").write_text(MODELS)
    return made


@pytest.mark.parametrize("command", ["migrate-workflows", "migrate-domain-models"])
def test_without_the_modules_nothing_is_compared(cli: Cli, command: str) -> None:
    """In a new shell the setting is forgotten, and all that the database knows would seem to be gone."""
    done = cli("db", command, code=1, ORCHESTRATOR_WORKFLOWS="")
    (line,) = done.stderr.splitlines()
    assert line.startswith("ORCHESTRATOR_WORKFLOWS is not set")
    assert not (cli.folder / "migrations").exists()


async def test_what_only_the_author_knows_is_written_as_comments_that_need_no_more_than_to_be_let_out(
    cli: Cli, database: Database
) -> None:
    """B23: the calls that the report names, with their import; untouched, the file has nothing that ruff dislikes."""
    migrate(cli, *ROLES)
    await subscribe(database, "Node P", "Node", {"ims_id": 7, "node_name": "ams"}, field="node")
    (cli.folder / "flows.py").write_text(LOADED)
    written = cli.json("db", "migrate-domain-models", code=1)
    path = cli.folder / written["path"]
    assert len(written["unloadable"]) == 2
    text = await asyncio.to_thread(path.read_text)
    rename = "rename_resource_type(op.get_bind(), 'ims_id', '…', block='Node')"
    assert f"    # {rename}\n" in text
    assert "    # fill_values(op.get_bind(), 'Node', {'site_id': …})\n" in text
    assert _complaints(path) == ""

    await asyncio.to_thread(path.write_text, text.replace(f"# {rename}", rename.replace("…", "site_id")))
    cli("db", "upgrade")
    assert cli.json("db", "migrate-domain-models") == {
        "path": None,
        "added": [],
        "removed": [],
        "changed": [],
        "left_out": [],
        "unloadable": [],
    }
    assert await database.pool.fetchval("SELECT resources FROM subscription_instances") == (
        '{"site_id": 7, "node_name": "ams"}'
    )


def _complaints(path: Path) -> str:
    """What ruff says of a file with the rules that it has by default."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--quiet", path.name]
    return subprocess.run(ruff, cwd=path.parent, capture_output=True, text=True, check=False).stdout


async def test_where_nothing_is_written_the_import_is_reported_with_the_calls(cli: Cli, database: Database) -> None:
    migrate(cli, *ROLES)
    await subscribe(database, "Node P", "Node", {"ims_id": 7}, field="node")
    shown = " ".join(cli("db", "migrate-domain-models", code=1, COLUMNS="1000").stdout.split())
    assert "fill_values(op.get_bind(), 'Node', {'node_name': …})" in shown
    assert "'orchestrator db revision' makes, with from orchestrator.db.registration import fill_values" in shown
    assert "new name" not in shown, "nothing can have got one"


def _put_in_place(project: Path, call: str, name: str) -> None:
    """Complete a call of an upgrade's comments with a name, and let it be all that the upgrade does."""
    (path,) = [one for one in project.glob("*.py") if call in one.read_text()]
    lines = path.read_text().splitlines()
    begin, end = (lines.index(f"def {name}() -> None:") for name in ("upgrade", "downgrade"))
    path.write_text("\n".join([*lines[: begin + 1], f"    {call.replace('…', name)}", "", lines[end], "    pass", ""]))


async def test_what_may_be_a_new_name_is_reported_with_the_lines_that_it_replaces(cli: Cli, database: Database) -> None:
    migrate(cli, *ROLES)
    await subscribe(database, "Node PE", "Node", {"node_name": "ams"}, field="node")
    (cli.folder / "flows.py").write_text(MODELS.replace('"Node PE": Node', '"Core": Node'))
    shown = cli("db", "migrate-domain-models", "--fixed-input", "Core:role=P", code=1, COLUMNS="1000").stdout
    call = "rename_product(op.get_bind(), 'Node PE', '…')"
    assert call in shown
    assert "rename_product replaces all lines that name the old or the new one" in shown
    _put_in_place(cli.folder / "migrations" / "project", call, "Core")
    cli("db", "upgrade")
    assert cli.json("db", "migrate-domain-models")["unloadable"] == []


def test_ends_of_migrations_are_joined_by_a_command(cli: Cli) -> None:
    """The names of both are told, whichever command would write the next."""
    cli("db", "revision", "-m", "first")
    done = cli("db", "merge", "-m", "too early", code=1)
    assert "there is nothing to join" in done.stderr
    left = Path(cli.folder / cli.json("db", "revision", "-m", "left")["path"])
    aside = left.rename(cli.folder / left.name)
    cli("db", "revision", "-m", "right")
    aside.rename(left)
    cli("db", "upgrade")
    for arguments in (("revision", "-m", "more"), ("migrate-domain-models", *ROLES)):
        (line,) = cli("db", *arguments, code=1).stderr.splitlines()
        assert left.name.split("_")[0] in line
        assert "orchestrator db merge" in line
    assert cli("db", "merge", "-m", "both").stdout.startswith("written: ")
    cli("db", "upgrade")
    cli("db", "revision", "-m", "more")


def test_a_program_that_has_nothing_to_migrate_runs_without_alembic(cli: Cli) -> None:
    cli("db", "migrate-domain-models", *ROLES)
    cli("db", "upgrade")
    log = cli.folder / "dev.log"
    cli.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    with replace(cli, installed=True).program("dev"):
        cli.until(lambda: "coordinator started" in log.read_text())
    imported = log.read_text()
    assert "sqlalchemy" in imported
    assert "alembic" not in imported


def test_a_program_says_at_its_start_what_was_probably_forgotten(cli: Cli) -> None:
    """It runs all the same."""
    log = cli.folder / "dev.log"

    def started(**changes: str) -> str:
        log.write_text("")
        cli.environment.update(changes)
        with cli.program("dev"):
            cli.until(lambda: "coordinator started" in log.read_text())
        return log.read_text()

    cli("db", "migrate-domain-models", *ROLES)
    assert "some migrations are not applied: run 'orchestrator db upgrade'" in started()
    cli("db", "upgrade")
    warnings = [line for line in started().splitlines() if "warning" in line]
    expected = ("ORCHESTRATOR_AUTH is not set", "event loop")  # that is blocked by imports, on a busy machine
    assert all(any(one in line for one in expected) for line in warnings), warnings
    (cli.folder / "flows.py").write_text(LOADED)
    told = started()
    assert "the models have what the database does not know: run 'orchestrator db migrate-domain-models'" in told
    assert "the resource type site_id of Node" in told
    told = started(ORCHESTRATOR_MIGRATIONS=".")
    assert "the project's migrations cannot be compared with the database" in told
    assert "ORCHESTRATOR_WORKFLOWS is not set" in started(ORCHESTRATOR_WORKFLOWS="", ORCHESTRATOR_MIGRATIONS="none")
