"""scripts/services, run for real in a folder of its own: what an operator and the chaos tests rely on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SERVICES = (sys.executable, CHECKOUT / "scripts" / "services")


def services(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/services, without the servers that the test session itself uses."""
    return subprocess.run(
        [*SERVICES, *arguments],
        env={**bare_environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "COVERAGE_"))}


@dataclass
class Pair:
    """A pair of private servers that a test may break."""

    folder: Path

    def run(self, *arguments: str) -> str:
        outcome = services("--dir", self.folder, *arguments)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    def following(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it without waiting for its end; what it prints can be read line by line."""
        command: list[str | Path] = [*SERVICES, "--dir", self.folder, *arguments]
        return subprocess.Popen(command, env=bare_environment(), stdout=subprocess.PIPE, text=True)

    def variables(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run("env", "--json"))
        return found

    def pids(self) -> dict[str, int]:
        pairs = (item.split("=") for item in self.variables()["ORCHESTRATOR_SERVICES_PIDS"].split(","))
        return {name: int(pid) for name, pid in pairs}


@pytest.fixture(scope="module")
def module_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("servers") / "services")
    try:
        pair.run("up")
        yield pair
    finally:
        services("--dir", pair.folder, "down", "--wipe")


@pytest.fixture
def pair(module_pair: Pair) -> Pair:
    """Running, whatever the test before did to it."""
    module_pair.run("up")
    return module_pair


def query(url: str, statement: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=60)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def declare(url: str, queue: str, *, passive: bool = False) -> None:
    async def ask() -> None:
        async with await aio_pika.connect(url, timeout=60) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True, passive=passive, arguments={"x-queue-type": "quorum"})

    asyncio.run(ask())


def eventually(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_up_gives_servers_that_can_be_used_and_a_second_up_leaves_them_alone(pair: Pair) -> None:
    """Both URLs work, the role may make databases, and `up` on running servers changes nothing."""
    before = pair.variables()
    url = before["ORCHESTRATOR_DATABASE_URL"]
    assert query(url, "SELECT rolcreatedb AND NOT rolsuper FROM pg_roles WHERE rolname = current_user") is True
    assert query(url, "SHOW fsync") == "on"
    declare(before["ORCHESTRATOR_AMQP_URL"], "tried")

    assert "runs already" in pair.run("up")
    assert pair.variables() == before
    assert "does not run" not in pair.run("status")


def test_only_a_server_that_is_started_for_tests_does_not_wait_for_the_disk(pair: Pair) -> None:
    url = pair.variables()["ORCHESTRATOR_DATABASE_URL"]
    for option, syncs in (("--without-sync",), "off"), ((), "on"):
        pair.run("stop", "postgres")
        pair.run("up", *option)
        assert query(url, "SHOW fsync") == syncs


def test_passwords_are_readable_for_their_owner_only(pair: Pair) -> None:
    """The folder of a shared machine's checkout gives nothing away."""
    for name in ("settings.json", "postgres.log", "rabbitmq.log"):
        assert (pair.folder / name).stat().st_mode & 0o077 == 0, name
    assert pair.folder.stat().st_mode & 0o066 == 0


def test_a_killed_postgres_comes_back_with_its_data_on_the_same_port(pair: Pair) -> None:
    """Kill -9 leaves a stale pid file behind; `up` recovers from it."""
    url = pair.variables()["ORCHESTRATOR_DATABASE_URL"]
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    killed = pair.pids()["postgres"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: services("--dir", pair.folder, "status").returncode == 1)

    pair.run("up")
    assert pair.variables()["ORCHESTRATOR_DATABASE_URL"] == url
    assert pair.pids()["postgres"] != killed
    assert query(url, "SELECT answer FROM kept") == 42


def test_one_server_can_be_killed_and_started_while_the_other_runs_on(pair: Pair) -> None:
    """`kill` and `start` are the crash of one server, for tests of what the engine does then."""
    before = pair.pids()
    pair.run("kill", "postgres")
    assert list(pair.pids()) == ["rabbitmq"]
    pair.run("start", "postgres")
    assert pair.pids()["rabbitmq"] == before["rabbitmq"]


def test_two_ups_at_the_same_time_start_each_server_once(pair: Pair) -> None:
    """The second one waits for the first, and finds everything running."""
    pair.run("kill", "postgres")
    with ThreadPoolExecutor() as pool:
        printed = list(pool.map(pair.run, ["up", "up"]))
    assert sum(text.count("postgres: started in") for text in printed) == 1
    assert sum(text.count("postgres: runs already") for text in printed) == 1


def test_a_wiped_broker_is_empty_and_answers_at_the_same_url(pair: Pair) -> None:
    """`wipe rabbitmq` loses all queues and keeps port and password, so clients reconnect to an empty broker."""
    before = pair.variables()
    url = before["ORCHESTRATOR_AMQP_URL"]
    declare(url, "to_be_lost")
    assert "to_be_lost" in pair.run("ctl", "--", "list_queues", "name")

    pair.run("wipe", "rabbitmq")
    assert pair.variables()["ORCHESTRATOR_AMQP_URL"] == url
    with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
        declare(url, "to_be_lost", passive=True)
    assert pair.pids()["postgres"] == int(before["ORCHESTRATOR_SERVICES_PIDS"].split(",")[0].split("=")[1])


def test_after_down_nothing_runs_and_up_finds_everything_again(pair: Pair) -> None:
    """`down` ends every process, epmd too, and keeps data, ports and passwords."""
    before = pair.variables()
    pids = pair.pids().values()
    pair.run("down")
    assert services("--dir", pair.folder, "status").returncode == 1
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert pair.run("down").count("does not run") == 2

    pair.run("up")
    urls = [name for name in before if name.endswith("_URL")]
    assert [pair.variables()[name] for name in urls] == [before[name] for name in urls]


def test_a_server_keeps_its_port_while_its_predecessor_is_still_dying(pair: Pair) -> None:
    """A killed server may listen for some moments more. Its successor waits, and does not move to another port."""
    before = pair.variables()
    port = urlsplit(before["ORCHESTRATOR_DATABASE_URL"]).port
    pair.run("stop", "postgres")
    with socket.create_server(("127.0.0.1", port or 0)) as dying, pair.following("start", "postgres") as successor:
        assert successor.stdout is not None
        assert f"waiting for port {port}" in successor.stdout.readline()
        dying.close()
        assert f"port {port}" in successor.stdout.read()
    assert successor.returncode == 0
    assert pair.variables()["ORCHESTRATOR_DATABASE_URL"] == before["ORCHESTRATOR_DATABASE_URL"]
    assert query(before["ORCHESTRATOR_DATABASE_URL"], "SELECT 1") == 1


def test_servers_whose_settings_are_damaged_start_anew(pair: Pair) -> None:
    """Those that run are found by their command lines and ended: nobody knows their passwords any more."""
    before, pids = pair.variables(), pair.pids()
    (pair.folder / "settings.json").write_text("{")
    assert "settings.json is damaged" in pair.run("up")
    after = pair.variables()
    assert not set(pids.values()) & set(pair.pids().values())
    assert after["ORCHESTRATOR_AMQP_URL"] != before["ORCHESTRATOR_AMQP_URL"]
    assert query(after["ORCHESTRATOR_DATABASE_URL"], "SELECT 1") == 1
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """Something that listens: as much as scripts/services asks of a server that was given."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_servers_that_are_given_are_used_as_they_are() -> None:
    """With both URLs set nothing is started and the variables are passed on unchanged."""
    with listener() as database, listener() as broker:
        urls = {
            "ORCHESTRATOR_DATABASE_URL": f"postgresql+asyncpg://me:secret@127.0.0.1:{database}/mine",
            "ORCHESTRATOR_AMQP_URL": f"amqp://me:secret@127.0.0.1:{broker}/",
        }
        up = services("up", **urls)
        assert up.returncode == 0
        assert up.stdout.count("given by") == 2
        assert "secret" not in up.stdout
        assert json.loads(services("env", "--json", **urls).stdout) == urls
    refused = services("up", **urls)
    assert refused.returncode == 1
    assert f"nothing answers at 127.0.0.1:{database}" in refused.stderr


def test_missing_programs_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    """Where nothing is installed and nothing may be installed, the message says what to do."""
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    outcome = services("--dir", tmp_path / "services", "up", ORCHESTRATOR_SERVICES_BINARIES=str(nothing))
    assert outcome.returncode == 1
    assert "apt-get install --no-install-recommends postgresql rabbitmq-server" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    """A mistyped --dir must not cost anybody their files."""
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("precious")
    for verb in (["up"], ["down", "--wipe"]):
        outcome = services("--dir", tmp_path, *verb)
        assert outcome.returncode == 1
        assert "holds something else" in outcome.stderr
    assert (tmp_path / "postgres" / "thesis.txt").read_text() == "precious"
