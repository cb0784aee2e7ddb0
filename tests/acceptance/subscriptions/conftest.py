"""Installations of the project with products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import make_installations_of
from tests.acceptance.subscriptions.network import Network
from tests.servers import Servers

MakeNetwork = Callable[..., Network]


@pytest.fixture
def networks(
    servers: Servers, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeNetwork]:
    """Makes installations without programs, for tests that stop, kill or count."""
    with make_installations_of(Network, servers, template_database, tmp_path_factory.mktemp) as make:
        yield make


@pytest.fixture(scope="session")
def network(servers: Servers, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A running installation that tests share: one coordinator, one consumer. Each test makes subscriptions of its own."""
    with make_installations_of(Network, servers, template_database, tmp_path_factory.mktemp) as make:
        installation = make()
        running = [installation.coordinator(), installation.consumer("--queue", "default", "--queue", "tasks")]
        for program in running:
            program.ready()
        installation.client.listen()
        yield installation
        assert all(program.runs for program in running), "a program has ended by itself"
