"""Programs that cannot work say so in one line and end at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest

from orchestrator.settings import Settings
from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.servers import Servers

DATABASE, AMQP = "ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_AMQP_URL"


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def with_port(url: str, port: int) -> str:
    """The URL with another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))


def with_password(url: str) -> str:
    """The URL with a wrong password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:wr0ng-sentinel@127.0.0.1:{parts.port}"))


def refused(engine: Installation, program: str, **settings: str) -> str:
    """Start a program that must refuse, and return its one line. One that waits for ever is ended, and fails the test."""
    outcome = engine.command(program, exit_code=1, **settings)
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, outcome.stderr
    assert outcome.stdout == ""
    for url in (engine.environment | settings).values():
        password = urlsplit(url).password if "://" in url else None
        assert not password or password not in lines[0], "the line shows a password"
    return lines[0]


@pytest.mark.parametrize("program", ["coordinator", "consumer"])
@pytest.mark.parametrize("which", [DATABASE, AMQP])
def test_a_server_that_is_not_there_is_named(engine: Installation, program: str, which: str) -> None:
    """Reliability: one line with the server, the address and the setting; exit code 1."""
    line = refused(engine, program, **{which: with_port(engine.environment[which], 1)})
    assert ("PostgreSQL at" if which == DATABASE else "RabbitMQ at") in line
    assert which in line
    assert "127.0.0.1:1" in line


@pytest.mark.parametrize("which", [DATABASE, AMQP])
def test_a_server_that_never_answers_is_named(engine: Installation, which: str, silent_port: int) -> None:
    """Reliability: the program waits for an answer no longer than the setting says, by default less than five seconds."""
    assert Settings.model_fields["connect_timeout"].default < 5
    silent = with_port(engine.environment[which], silent_port)
    line = refused(engine, "consumer", **{which: silent, "ORCHESTRATOR_CONNECT_TIMEOUT": "3"})
    assert which in line
    assert str(silent_port) in line


@pytest.mark.parametrize("which", [DATABASE, AMQP])
def test_a_wrong_password_is_named(engine: Installation, which: str) -> None:
    """Reliability: the server's own words, and not the password."""
    line = refused(engine, "consumer", **{which: with_password(engine.environment[which])})
    assert which in line


def test_a_missing_database_or_virtual_host_is_named(engine: Installation) -> None:
    """Reliability: the server answers but has not what the URL names."""
    line = refused(engine, "coordinator", **{DATABASE: engine.environment[DATABASE] + "_not"})
    assert "does not exist" in line
    line = refused(engine, "coordinator", **{AMQP: engine.environment[AMQP] + "-not"})
    assert AMQP in line


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({DATABASE: "mysql://somewhere/else"}, f"{DATABASE}: "),
        ({AMQP: "http://somewhere"}, f"{AMQP}: "),
        ({"ORCHESTRATOR_STEP_TIMEOUT": "soon"}, "ORCHESTRATOR_STEP_TIMEOUT: "),
        ({"ORCHESTRATOR_QUEUE_TYPE": "classic"}, "ORCHESTRATOR_QUEUE_TYPE"),
    ],
)
def test_a_setting_that_cannot_be_is_named(engine: Installation, settings: dict[str, str], text: str) -> None:
    """Reliability: each variable by name; also a queue type that the broker's queues do not have."""
    assert text in refused(engine, "consumer", **settings)


def test_a_database_without_tables_says_what_to_do(engine: Installation, servers: Servers) -> None:
    """Reliability: 'orchestrator db upgrade' is the answer."""
    line = refused(engine, "coordinator", **{DATABASE: servers.database_url("postgres")})
    assert "orchestrator db upgrade" in line


def test_a_broker_user_without_permission_is_reported_what_is_missing(
    installations: MakeInstallation, servers: Servers
) -> None:
    """Reliability: no access at all, and access without any right on an empty broker."""
    engine = installations()
    name = f"nobody-{uuid4().hex[:8]}"
    parts = urlsplit(engine.amqp_url)
    url = urlunsplit(parts._replace(netloc=f"{name}:secret-sentinel@127.0.0.1:{parts.port}"))
    servers.call("PUT", f"users/{name}", {"password": "secret-sentinel", "tags": ""})
    try:
        assert AMQP in refused(engine, "consumer", **{AMQP: url})
        nothing = {"configure": "^$", "write": "^$", "read": "^$"}
        servers.call("PUT", f"permissions/{parts.path[1:]}/{name}", nothing)
        line = refused(engine, "consumer", **{AMQP: url})
        assert "may not declare it" in line
        assert "orchestrator topology declare" in line
    finally:
        servers.call("DELETE", f"users/{name}")


def test_wrong_usage_is_exit_code_two(engine: Installation) -> None:
    """Contracts: 2 for usage, 1 for refusals."""
    assert engine.command("consumer", "--concurrency", "0", exit_code=2).stderr
    assert engine.command("consumer", "--queue", "a b", exit_code=2).stderr
    assert engine.command("start", exit_code=2).stderr
    assert engine.command("start", "one_step", "--input", "not json", exit_code=2).stderr
    assert "no process" in engine.command("show", str(uuid4()), exit_code=1).stderr
