"""Fixtures for tests of workflows.

pytest loads this module in every project that has the package installed, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from orchestrator.settings import Settings
    from orchestrator.testing import Engine, WorkflowDatabase

_HELP = "a database for tests of workflows that is there and may be emptied; 'test' must be in its name"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names an existing database."""
    group = parser.getgroup("orchestrator", "tests of workflows")
    group.addoption("--workflow-database", metavar="NAME", default=None, help=_HELP)


@pytest.fixture(scope="session")
def workflow_settings() -> Settings:
    """Provide the settings of the project, from the environment and ``.env``. Override it to set others."""
    from orchestrator.errors import ConfigurationError
    from orchestrator.settings import load_settings

    try:
        return load_settings(needs_broker=False)
    except ConfigurationError as error:
        pytest.fail(f"workflow_settings: {error}", pytrace=False)


@pytest.fixture(scope="session")
def workflow_database(workflow_settings: Settings, pytestconfig: pytest.Config) -> Iterator[WorkflowDatabase]:
    """Provide a database of this run, with all migrations applied: that of the settings with ``_test`` at its end."""
    from orchestrator.errors import OrchestratorError
    from orchestrator.testing import open_database

    worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "")
    existing = pytestconfig.getoption("--workflow-database")
    opened = open_database(workflow_settings, worker=worker, existing=existing)
    try:
        database = opened.__enter__()
    except OrchestratorError as error:
        pytest.fail(f"workflow_database: {error}", pytrace=False)
    yield database
    opened.__exit__(None, None, None)


async def _provide_engine(workflow_database: WorkflowDatabase) -> AsyncIterator[Engine]:
    """Provide an engine that runs workflows in the test's database, which holds what the migrations have left in it."""
    from orchestrator.testing import open_engine

    workflow_database.reset()
    async with open_engine(workflow_database.settings) as engine:
        yield engine


def _refuse_engine() -> None:
    """Say what is missing."""
    pytest.fail("workflow_engine: it needs pytest-asyncio: install orchestrator[testing]", pytrace=False)


try:
    import pytest_asyncio
except ImportError:
    workflow_engine: object = pytest.fixture(_refuse_engine, name="workflow_engine")
else:
    workflow_engine = pytest_asyncio.fixture(_provide_engine, name="workflow_engine")
