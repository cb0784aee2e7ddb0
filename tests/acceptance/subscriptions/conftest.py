"""Installations of the project with products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import make_installations_of
from tests.acceptance.programs import measured
from tests.acceptance.subscriptions.network import Network
from tests.databases import Databases

MakeNetwork = Callable[..., Network]


@pytest.fixture
def networks(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNetwork]:
    """Provide a factory of installations without programs, for tests that stop, kill or count."""
    with make_installations_of(Network, databases, tmp_path_factory.mktemp) as make:
        yield make


@pytest.fixture(scope="package")
def network(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Provide a running installation that tests share, each with subscriptions of its own: one coordinator, one consumer."""
    with make_installations_of(Network, databases, tmp_path_factory.mktemp) as make:
        installation = make(**measured())
        running = [installation.coordinator(), installation.consumer("--queue", "default", "--queue", "tasks")]
        for program in running:
            program.ready()
        installation.client.listen()
        yield installation
        assert all(program.runs for program in running), "a program has ended by itself"
        assert [program.stop() for program in running] == [0, 0]
