"""The ports of private servers, which a server keeps for good because programs know it by URL, and what is remembered of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
from servers import ServicesError, packages, system
from servers.folder import PORTS, Folder
from servers.rabbitmq import count_leaderless
from servers.system import is_free, listens, wait_for_port


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    """A program that listens, as a server does that has been killed and is not gone yet."""
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])


def test_a_server_waits_for_its_port_until_the_old_one_has_gone(listener: socket.socket) -> None:
    port = port_of(listener)
    Timer(0.3, listener.close).start()

    wait_for_port("rabbitmq", port)

    assert is_free(port)


def test_a_server_waits_for_its_port_while_old_connections_hold_it(stack: ExitStack) -> None:
    """As in TIME_WAIT, which a test cannot wait for: nobody listens, and yet the port cannot be bound."""
    server = stack.enter_context(socket.socket())
    server.bind(("127.0.0.1", 0))  # without SO_REUSEADDR, unlike the servers that we start
    server.listen()
    port = port_of(server)
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    accepted, _ = server.accept()
    stack.enter_context(accepted)
    server.close()
    assert not is_free(port)
    assert not listens("127.0.0.1", port)

    def close() -> None:
        client.close()  # first, so that TIME_WAIT is with its port
        accepted.close()

    Timer(0.3, close).start()
    wait_for_port("rabbitmq", port)

    assert is_free(port)


def test_a_port_that_another_program_keeps_is_an_error(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other port is taken in silence: the programs that know the server by its URL would look for it in vain."""
    monkeypatch.setattr(system, "PORT_SECONDS", 0.1)
    port = port_of(listener)

    with pytest.raises(ServicesError, match=rf"rabbitmq: port {port} is in use by another program\. .*down --wipe"):
        wait_for_port("rabbitmq", port)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with settings, as ``up`` makes it."""
    folder = Folder(tmp_path / "services")
    with folder.locked():
        folder.renew()
    return folder


def test_ports_and_password_are_remembered(folder: Folder) -> None:
    found = Folder(folder.path)

    assert found.read()
    assert (found.ports, found.password) == (folder.ports, folder.password)
    assert sorted(found.ports) == sorted(PORTS)
    assert len(set(found.ports.values())) == len(PORTS)


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_folder_starts_anew(
    folder: Folder, tmp_path: Path, how: Callable[[Path, Path], Path]
) -> None:
    """The servers of a copied one would be those of the original."""
    found = Folder(how(folder.path, tmp_path / "elsewhere"))

    assert not found.read()
    assert found.why_anew == f"{found.path} was moved or copied from {folder.path}: its servers start anew"


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"folder": "FOLDER", "password": "secret", "ports": {"postgres": 15001}}']
)
def test_a_damaged_folder_starts_anew(folder: Folder, content: str) -> None:
    (folder.path / "settings.json").write_text(content.replace("FOLDER", str(folder.path)))

    assert not folder.read()
    assert folder.why_anew == f"{folder.path}/settings.json is damaged: the servers start anew"


def test_a_folder_of_an_earlier_version_starts_anew(tmp_path: Path) -> None:
    """It has other settings, and no lock."""
    folder = Folder(tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps({"folder": str(folder.path), "servers": {}}))
    with folder.locked():
        assert not folder.read()
        folder.renew()

    assert folder.read()


def test_a_new_start_deletes_the_data_whose_password_is_forgotten(folder: Folder) -> None:
    data = folder.path / "postgres" / "data"
    data.mkdir(parents=True)
    forgotten = folder.password

    folder.renew()

    assert folder.password != forgotten
    assert not data.exists()


def test_a_wiped_folder_holds_nothing_but_its_lock(folder: Folder) -> None:
    """A command that waits for the lock would otherwise get one that protects nothing."""
    (folder.path / "rabbitmq" / "data").mkdir(parents=True)
    with folder.locked():
        folder.wipe()

    assert [file.name for file in folder.path.iterdir()] == ["lock"]


def test_programs_that_only_tests_need_are_asked_for_where_they_cannot_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(["apt-get", *arguments], 100, "", "no network")

    monkeypatch.delenv(packages.ONLY_HERE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name, **_: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(packages, "FOR_TESTS", ("no-such-proxy", "nor-this"))
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(packages, "_apt", no_network)
    missing = "no-such-proxy and nor-this are not there for the tests that need them"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    packages.provide_for_tests()
    found = "".join(capsys.readouterr())
    assert missing in found
    assert "no network" in found
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    packages.provide_for_tests()
    found = "".join(capsys.readouterr())
    assert missing in found
    assert "sudo apt-get install" in found


RECOVERED = """
2026-11-26 19:34:35 [info] <0.474.0> Recovering 0 queues of type rabbit_classic_queue took 4ms
2026-11-26 19:34:35 [info] <0.474.0> Recovering 2 queues of type rabbit_quorum_queue took 15ms
2026-11-26 19:34:35 [notice] <0.502.0> queue 'orchestrator.commands' in vhost '/': candidate -> leader in term: 2
"""


def test_a_queue_that_has_no_leader_after_a_restart_is_seen_in_the_nodes_log() -> None:
    """rabbitmq-server#10070: it stays so until it is made to elect one."""
    declared = RECOVERED + "".join(f"queue 'new.{n}' in vhost '/': candidate -> leader in term: 1\n" for n in range(3))
    assert count_leaderless(RECOVERED) == count_leaderless(declared) == 1
    assert count_leaderless(f"{RECOVERED}queue 'orchestrator.dead' in vhost '/': candidate -> leader in term: 2") == 0
    assert (
        count_leaderless(f"{RECOVERED}{{'%2F_other.dead',orchestrator@localhost}}: candidate -> leader in term: 3") == 0
    )
    assert count_leaderless("") == 0
