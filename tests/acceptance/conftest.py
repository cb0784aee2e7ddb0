"""Installations for the tests, and their programs' output beside every failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from tests.acceptance.installation import Installation
from tests.acceptance.programs import measured
from tests.databases import Databases
from tests.servers import drop_vhost, make_vhost

MakeInstallation = Callable[..., Installation]
Kind = TypeVar("Kind", bound=Installation)
TAIL = 80
"""Lines of each program's output that are shown beside a failure."""

LIVE: list[Installation] = []
"""The installations that the present test may be using."""


@contextlib.contextmanager
def make_installations_of(
    kind: Callable[..., Kind],
    databases: Databases,
    folder: Callable[[str], Path],
    vhost: str | None = None,
) -> Iterator[Callable[..., Kind]]:
    """Make installations of a project, with its migrations applied, and end them.

    Args:
        kind: makes one of its folder, its servers' URLs and settings.
        databases: of the servers on which they run.
        vhost: a virtual host that is there already, for brokers that are going to be wiped; default one for each.
    """
    servers = databases.servers
    made: list[tuple[Kind, str]] = []

    def make(**settings: str) -> Kind:
        def migrate(url: str) -> None:
            with contextlib.closing(kind(folder("template"), url, servers.amqp, **settings)) as installation:
                installation.command("db", "upgrade")

        name = f"test-{uuid4().hex[:12]}"
        project = [settings.get(one) for one in ("ORCHESTRATOR_WORKFLOWS", "ORCHESTRATOR_MIGRATIONS")]
        database_url = databases.take(databases.template((kind, *project), migrate))
        if vhost is None:
            make_vhost(servers, name)
        installation = kind(folder(name), database_url, servers.amqp_url(vhost or name), **settings)
        made.append((installation, name))
        LIVE.append(installation)
        return installation

    try:
        yield make
    finally:
        for installation, name in made:
            LIVE.remove(installation)
            installation.close()
            if vhost is None:
                drop_vhost(servers, name)
            databases.give_back(installation.database_url)
    assert [line for installation, _ in made for line in installation.defects()] == []
    assert [line for installation, _ in made for line in installation.leaks()] == [], "secrets in a log"


def make_installations(
    databases: Databases, folder: Callable[[str], Path], vhost: str | None = None
) -> contextlib.AbstractContextManager[MakeInstallation]:
    """As above, of the project without products."""
    return make_installations_of(Installation, databases, folder, vhost)


@pytest.fixture
def installations(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeInstallation]:
    """Provide a factory of installations without programs, for tests that stop, kill or pause."""
    with make_installations(databases, tmp_path_factory.mktemp) as make:
        yield make


@pytest.fixture(params=["0", "20"], ids=["by command", "run ahead"])
def in_both_modes(installations: MakeInstallation, request: pytest.FixtureRequest) -> MakeInstallation:
    """Provide the factory for tests of what must hold whether or not steps run ahead; the others have the default."""
    return partial(installations, ORCHESTRATOR_RUN_AHEAD=request.param)


@pytest.fixture(scope="package")
def engine(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Provide a running installation that tests share which do not disturb each other: one coordinator, one consumer.

    It ends with the tests of this folder: left running for the session, those of all workers took a tenth of the machine.
    """
    with make_installations(databases, tmp_path_factory.mktemp) as make:
        installation = make(**measured())
        installation.installed = True
        running = [installation.coordinator(), installation.consumer("--queue", "default", "--queue", "tasks")]
        installation.installed = False
        for program in running:
            program.ready()
        installation.client.listen()
        yield installation
        assert all(program.runs for program in running), "a program has ended by itself"
        assert [program.stop() for program in running] == [0, 0]


@pytest.fixture
def own(installations: MakeInstallation) -> Installation:
    """Provide a running installation of the test's own: one coordinator, one consumer."""
    installation = installations(**measured())
    for program in [installation.coordinator(), installation.consumer()]:
        program.ready()
    installation.client.listen()
    return installation


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of every program's output beside a failure."""
    report = yield
    if report.failed:
        for program in (program for installation in LIVE for program in installation.programs):
            text = "\n".join(program.output().splitlines()[-TAIL:])
            report.sections.append((f"{program.name} (in {program.log})", text))
    return report
