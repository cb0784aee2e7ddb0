"""Projects of others run their tests with the kit: its fixtures are there, its database comes and goes."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.db.disposable import MARK
from tests.databases import Databases
from tests.integration.documentation import DOCS, REPOSITORY, Shell, blocks, write_files
from tests.servers import Servers

CONFIGURATION = """
[tool.pytest.ini_options]
asyncio_mode = "auto"
asyncio_default_fixture_loop_scope = "function"
pythonpath = ["."]
filterwarnings = ["error"]
"""

PORTS = """
from orchestrator.workflow import StepList, begin, done, step, workflow
from orchestrator.workflows import LazyWorkflowInstance


@step("Choose a VLAN")
async def choose_vlan() -> dict[str, int]:
    return {"vlan": 7}


@workflow("Create a port")
def create_port() -> StepList:
    return begin >> choose_vlan >> done


LazyWorkflowInstance("ports", "create_port")
"""

TEST = """
from orchestrator.testing import assert_complete
from ports import create_port


async def test_a_port(workflow_engine):
    process = await workflow_engine.run_workflow(create_port)
    assert_complete(process)
    assert process.state == {"vlan": 7}
"""


@dataclass(frozen=True)
class Project:
    """A project in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    servers: Servers

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)

    def test(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run its tests; return what pytest says."""
        outcome = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert outcome.returncode == code, f"{outcome.stdout}\n{outcome.stderr}"
        return outcome.stdout + outcome.stderr

    @property
    def name(self) -> str:
        """The name of its own database."""
        return urlsplit(self.environment["ORCHESTRATOR_DATABASE_URL"]).path.removeprefix("/")

    def sql(self, statement: str, *arguments: object) -> list[str]:
        """Run a statement in the project's own database."""

        async def run() -> list[str]:
            connection = await asyncpg.connect(self.servers.database_url(self.name).replace("+asyncpg", ""))
            try:
                return [str(row[0]) for row in await connection.fetch(statement, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(run())

    def databases(self) -> list[str]:
        """The databases of its server that begin with the name of its own."""
        return self.sql("SELECT datname FROM pg_database WHERE datname LIKE $1 ORDER BY 1", f"{self.name}%")


@pytest.fixture
def project(databases: Databases, servers: Servers, tmp_path: Path) -> Iterator[Project]:
    """A project with one workflow, and an empty database of its own."""
    url = databases.take(databases.template("empty", lambda _: None))
    environment = Shell(tmp_path, url, "", "ports").environment
    del environment["ORCHESTRATOR_AMQP_URL"]
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    made = Project(tmp_path, environment, servers)
    made.write(ports=PORTS, test_ports=TEST)
    yield made
    databases.give_back(url)


def test_the_tests_of_the_page_pass(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    """As a new author comes to them: the project of the pages, its migrations, and what the page says about pytest."""
    write_files(DOCS / "write-a-workflow.md", tmp_path)
    (configuration,) = blocks(DOCS / "test-workflows.md", "toml")
    (tmp_path / "pyproject.toml").write_text(configuration.text)
    shell = Shell(tmp_path, database_url, amqp_url, workflows="network")
    migrate = blocks(DOCS / "product-migrations.md", "sh")[0].text.replace("\\\n", " ").splitlines()
    for line in (*migrate, "orchestrator db migrate-workflows"):
        shell.run(*shlex.split(line))
    empty = tmp_path / shell.json("db", "revision", "-m", "vlans")["path"]
    head = empty.read_text().partition("def upgrade")[0]
    imports, upgrade, rest = (tmp_path / "vlans.py").read_text().partition("def upgrade")
    empty.write_text(head.replace("from alembic import op\n", imports) + upgrade + rest)

    said = shell.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis")

    assert "10 passed" in said


def test_the_tests_of_the_example_pass(project: Project) -> None:
    network = {"ORCHESTRATOR_WORKFLOWS": "examples.network", "ORCHESTRATOR_MIGRATIONS": "examples/network/migrations"}
    here = replace(project, folder=REPOSITORY, environment=project.environment | network)
    assert "5 passed" in here.test("examples/network/test_nodes.py")


def test_workers_have_a_database_each(project: Project) -> None:
    project.write(test_again=TEST, test_once_more=TEST)
    assert "3 passed" in project.test("-n", "2")
    assert project.databases() == [project.name]


def test_a_run_that_was_killed_leaves_nothing_that_the_next_one_minds(project: Project) -> None:
    project.sql(f'CREATE DATABASE "{project.name}_test"')
    project.sql(f"COMMENT ON DATABASE \"{project.name}_test\" IS '{MARK}'")
    assert "1 passed" in project.test()
    assert project.databases() == [project.name]


def test_a_database_that_the_kit_has_not_made_is_left_alone(project: Project) -> None:
    project.sql(f'CREATE DATABASE "{project.name}_test"')
    try:
        assert "exists and was not made for tests" in project.test(code=1)
        assert project.databases() == [project.name, f"{project.name}_test"]
    finally:
        project.sql(f'DROP DATABASE "{project.name}_test"')


def test_a_database_that_exists_may_be_given_if_its_name_says_test(project: Project) -> None:
    refused = project.test("--workflow-database", "customers", code=1)
    assert "'customers' does not say by its name that it is for tests" in refused
    name = f"{project.name}_for_a_test"
    project.sql(f'CREATE DATABASE "{name}"')
    try:
        assert "1 passed" in project.test("--workflow-database", name)
        assert "1 passed" in project.test("--workflow-database", name)
        assert project.databases() == [project.name, name]
    finally:
        project.sql(f'DROP DATABASE "{name}"')


def test_two_runs_at_once_are_refused(project: Project) -> None:
    project.write(
        test_ports="""
import subprocess, sys


def test_another_run(workflow_database):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "test_inner.py"]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert "another test run of this project is under way" in outcome.stdout
""",
        test_inner=TEST,
    )
    assert "1 passed" in project.test("test_ports.py")


def test_what_is_missing_is_said_in_one_line(project: Project) -> None:
    url = project.environment.pop("ORCHESTRATOR_DATABASE_URL")
    said = project.test(code=1)
    assert "workflow_settings: wrong configuration: ORCHESTRATOR_DATABASE_URL is not set" in said
    assert "Traceback" not in said
    nowhere = project.test(code=1, ORCHESTRATOR_DATABASE_URL="postgresql+asyncpg://me@127.0.0.1:1/nothing")
    assert "workflow_database: PostgreSQL at postgresql://me@127.0.0.1:1/nothing cannot be used" in nowhere
    broken = project.test(code=1, ORCHESTRATOR_DATABASE_URL=url, ORCHESTRATOR_WORKFLOWS="no_such_module")
    assert "'no_such_module' of ORCHESTRATOR_WORKFLOWS cannot be imported" in broken


def test_a_workflow_that_no_migration_registers_is_refused_by_its_name(project: Project) -> None:
    project.write(test_ports=TEST.replace("(create_port)", '("create_port")'))
    assert "is registered in the code but not in the database" in project.test(code=1)


def test_each_test_finds_the_database_of_the_migrations_whatever_others_did_to_it(project: Project) -> None:
    """One changes the schema, one leaves a lock, one is in another event loop. The project's own database stays empty."""
    project.write(
        test_a_name="""
from sqlalchemy import text


async def test_its_name(workflow_engine):
    async with workflow_engine.transaction() as session:
        assert (await session.execute(text("SELECT current_database()"))).scalar_one().endswith("_test")
        await session.execute(text("ALTER TABLE workflows RENAME TO flows"))
""",
        test_b_lock="""
import asyncpg

kept = []


async def test_a_lock(workflow_database):
    url = workflow_database.settings.database_url.get_secret_value().replace("+asyncpg", "")
    kept.append(await asyncpg.connect(url))
    await kept[0].execute("BEGIN; LOCK TABLE consumers")
""",
        test_c_port=TEST,
        test_d_loop="""
import pytest


@pytest.mark.asyncio(loop_scope="module")
async def test_another_loop(workflow_engine):
    with pytest.raises(RuntimeError, match="give asyncio_default_fixture_loop_scope"):
        await workflow_engine.run_workflow("create_port")
""",
    )
    assert "5 passed" in project.test(
        "-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"
    )
    assert project.databases() == [project.name]
    assert project.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_a_project_that_uses_none_of_it_pays_nothing(project: Project) -> None:
    del project.environment["ORCHESTRATOR_DATABASE_URL"]
    project.write(
        test_ports="""
import sys


def test_that_nothing_was_imported():
    ours = {one for one in sys.modules if one.partition(".")[0] in ("orchestrator", "consumers")}
    assert ours <= {"orchestrator", "orchestrator.pytest_plugin"}, ours
    assert not {"sqlalchemy", "asyncpg", "pydantic", "structlog"} & set(sys.modules)
"""
    )
    assert "1 passed" in project.test()
    assert "1 passed" in project.test("-p", "no:asyncio", "-o", "asyncio_mode=", "-W", "ignore")


def test_without_pytest_asyncio_the_fixture_says_what_is_missing(project: Project) -> None:
    project.write(
        pytest_asyncio="raise ImportError",
        test_ports="def test_a_port(workflow_engine): ...",
    )
    (project.folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    said = project.test("-p", "no:asyncio", code=1, PYTHONPATH=str(project.folder))
    assert "install orchestrator[testing]" in said
