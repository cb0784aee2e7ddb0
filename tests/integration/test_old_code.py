"""Programs whose code is older than the database: they say so, and do not undo what they do not know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.db.session import Database
from tests.forking import Program
from tests.integration.cli_servers import Cli, project
from tests.integration.test_changed_models import write_revision
from tests.integration.test_migrating_models import MODELS, ROLES, migrate, subscribe

FLOW = """

from orchestrator.forms import FormPage
from orchestrator.registry import LazyWorkflowInstance
from orchestrator.workflow import done, init, step, workflow

LazyWorkflowInstance("flows", "look_at")


def form():
    class Which(FormPage):
        node: str

    page = yield Which
    return page.model_dump()


@step("Look")
async def look(node: Node) -> dict:
    return {"seen": node.node.node_name}


@workflow("Looks at a node", initial_input_form=form)
def look_at():
    return init >> look >> done
"""
OLD = MODELS + FLOW
NEW = OLD.replace("node_name", "hostname")


@pytest.fixture
def old(database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    """A checkout whose migrations are applied."""
    folder = tmp_path / "old"
    folder.mkdir()
    made = project(folder, database_url, amqp_url)
    (folder / "flows.py").write_text(OLD)
    migrate(made, *ROLES)
    made("db", "migrate-workflows")
    made("db", "upgrade")
    return made


@pytest.fixture
def running(old: Cli) -> Iterator[Program]:
    """A coordinator and a consumer of the old checkout."""
    with old.program("dev") as program:
        old.until(old.is_reading)
        yield program


def rename(old: Cli, tmp_path: Path) -> tuple[Cli, str]:
    """Return a newer checkout, whose migration gives a value another name, and that revision; it is applied."""
    shutil.copytree(old.folder, tmp_path / "new")
    new = Cli(tmp_path / "new", old.environment)
    (new.folder / "flows.py").write_text(NEW)
    write_revision(
        new,
        "rename_resource_type(op.get_bind(), 'node_name', 'hostname'); register_task(op.get_bind(), name='late')",
        "rename_resource_type(op.get_bind(), 'hostname', 'node_name')",
    )
    new("db", "upgrade")
    (revision,) = (one.name.split("_")[0] for one in _files(new) - _files(old))
    return new, revision


def _files(cli: Cli) -> set[Path]:
    return {Path(one.name) for one in (cli.folder / "migrations" / "project").glob("*.py")}


def heads(cli: Cli) -> list[str]:
    """Return the newest revisions that a checkout knows."""
    known: list[str] = cli.json("status")["revisions"]["known"]
    return known


async def test_a_consumer_with_older_code_than_the_database_says_so_in_its_error_and_in_status(
    old: Cli, running: Program, tmp_path: Path, database: Database
) -> None:
    """It was told to write a migration: with its checkout, that would be the one that undoes the rename."""
    subscription, _ = await subscribe(database, "Node P", "Node", {"node_name": "ams"}, field="node")
    page = json.dumps({"node": str(subscription)})
    old("start", "look_at", "-i", page, "--wait")
    assert old.json("status")["revisions"]["difference"] is None

    known = ", ".join(heads(old))
    new, revision = rename(old, tmp_path)
    words = (
        f"the database is at revision {revision}, which this program does not know (it knows up to {known}):"
        " its code is older than the database, so deploy the current code"
    )
    failed = old("start", "look_at", "-i", page, "--wait", code=1, COLUMNS="1000").stderr
    assert "ModelError: the subscription" in failed
    assert words in failed
    assert "migrate-domain-models" not in failed
    assert words in old("status").stdout
    assert old.json("status")["revisions"]["difference"] == words
    seen = new.json("status")
    (consumer,) = seen["consumers"]
    assert seen["revisions"]["difference"] is None
    assert seen["revisions"]["older_consumers"] == {consumer["name"]: [revision]}
    assert (
        f"{consumer['name']} has older code than the database, without the revision {revision}" in new("status").stdout
    )
    running.kill()

    with new.program("dev"):
        new.until(new.is_reading)
        new("start", "look_at", "-i", page, "--wait")


async def test_an_upgrade_names_the_consumers_that_must_stop_before_new_ones_start(
    old: Cli, running: Program, database: Database
) -> None:
    """They do not find what new ones move to the base of a large state: their steps would take defaults in its place."""
    assert old.json("db", "upgrade")["consumers_to_stop"] == []
    assert "older version" not in old("db", "upgrade").stdout
    name = await database.pool.fetchval("SELECT name FROM consumers")
    await database.pool.execute(
        "INSERT INTO consumers (consumer_id, name, queues, concurrency, heartbeat_interval, presumed_dead_after, responsive_at,"
        " seen_at, revisions) SELECT gen_random_uuid(), 'old:' || n, '{default}', 1, 1, 3600, now(),"
        " now() - n * interval '1 hour', '{0031}' FROM generate_series(0, 2) n"
    )
    assert old.json("db", "upgrade")["consumers_to_stop"] == ["old:0"]
    said = old("db", "upgrade", COLUMNS="1000").stdout
    assert "consumers of an older version still run: old:0. They cannot read what this version writes." in said
    assert name not in said


async def test_an_older_checkout_writes_and_applies_no_migrations_and_warns_at_its_start(
    old: Cli, tmp_path: Path, database: Database
) -> None:
    _, revision = rename(old, tmp_path)
    files = _files(old)
    for command in ("migrate-domain-models", "migrate-workflows", "upgrade", "status"):
        refused = old("db", command, code=1, COLUMNS="1000").stderr
        assert f"the database is at revision {revision}, which this program does not know" in refused
        assert "deploy the current code" in refused
    assert _files(old) == files
    for arguments in (("start", "late"), ("workflows",)):
        done = old(*arguments, code=int("late" in arguments), COLUMNS="1000")
        assert f"the database is at revision {revision}, which this program does not know" in done.stderr + done.stdout
        assert "migrate-workflows" not in done.stderr + done.stdout
    with old.program("dev"):
        old.until(lambda: "coordinator started" in (old.folder / "dev.log").read_text())
    log = (old.folder / "dev.log").read_text()
    assert f"the database is at revision {revision}, which this program does not know" in log
    assert "migrate-domain-models" not in log


async def test_a_newer_program_on_an_older_database_is_told_to_upgrade_it(
    old: Cli, tmp_path: Path, database: Database
) -> None:
    subscription, _ = await subscribe(database, "Node P", "Node", {"node_name": "ams"}, field="node")
    (old.folder / "flows.py").write_text(NEW)
    write_revision(old, "rename_resource_type(op.get_bind(), 'node_name', 'hostname')", "pass")
    (pending,) = old.json("db", "status", code=1)["pending"]
    words = f"the database lacks the revision {pending}: run 'orchestrator db upgrade'"
    assert old.json("status")["revisions"]["difference"] == words
    page = json.dumps({"node": str(subscription)})
    with old.program("dev"):
        old.until(old.is_reading)
        assert words in old("start", "look_at", "-i", page, "--wait", code=1, COLUMNS="1000").stderr
