"""The ports of private servers, which a server keeps for good because programs know it by URL, and what is remembered of them."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
from servers import ports
from servers.errors import ServicesError
from servers.folder import Folder, Record
from servers.ports import is_free, listens


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    """A program that listens, as a server does that has been killed and is not gone yet."""
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def folder_with(path: Path, port: int) -> Folder:
    folder = Folder(path)
    folder.records["rabbitmq"] = Record(str(path), {"amqp": port}, "secret")
    return folder


def port_of(held: socket.socket) -> int:
    return int(held.getsockname()[1])


def test_a_server_waits_for_its_port_until_the_old_one_has_gone(tmp_path: Path, listener: socket.socket) -> None:
    port = port_of(listener)
    folder = folder_with(tmp_path, port)
    Timer(0.3, listener.close).start()

    folder.wait_for_ports("rabbitmq")

    assert folder.records["rabbitmq"].ports == {"amqp": port}
    assert is_free(port)


def test_a_server_waits_for_its_port_while_old_connections_hold_it(tmp_path: Path, stack: ExitStack) -> None:
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
    assert not listens(port)
    folder = folder_with(tmp_path, port)

    def close() -> None:
        client.close()  # first, so that TIME_WAIT is with its port
        accepted.close()

    Timer(0.3, close).start()
    folder.wait_for_ports("rabbitmq")

    assert folder.records["rabbitmq"].ports == {"amqp": port}
    assert is_free(port)


def test_a_port_that_another_program_keeps_is_an_error(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other port is taken in silence: the programs that know the server by its URL would look for it in vain."""
    monkeypatch.setattr(ports, "DYING_SECONDS", 0.1)
    port = port_of(listener)
    folder = folder_with(tmp_path, port)

    with pytest.raises(ServicesError, match=rf"rabbitmq: port {port} is in use by another program\. .*down --wipe"):
        folder.wait_for_ports("rabbitmq")

    assert folder.records["rabbitmq"].ports == {"amqp": port}


def remembered(path: Path) -> Folder:
    """A folder as another run of scripts/services finds it."""
    folder = Folder(path)
    folder.read()
    return folder


def test_ports_and_passwords_are_remembered(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "services")
    with folder.locked():
        folder.remember("rabbitmq", Record("data", {"amqp": 15001}, "secret"))

    assert remembered(folder.path).records == folder.records
    assert remembered(folder.path).why_anew is None


def test_a_copied_folder_starts_anew(tmp_path: Path) -> None:
    """Its servers would be those of the original."""
    folder = Folder(tmp_path / "services")
    with folder.locked():
        folder.remember("rabbitmq", Record("data", {"amqp": 15001}, "secret"))
    copy = shutil.copytree(folder.path, tmp_path / "copy")

    found = remembered(copy)

    assert found.records == {}
    assert found.why_anew == f"{copy} was moved or copied from {folder.path}: its servers start anew"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"folder": "FOLDER", "servers": {"rabbitmq": {}}}'])
def test_a_damaged_folder_starts_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content.replace("FOLDER", str(tmp_path)))

    found = remembered(tmp_path)

    assert found.records == {}
    assert found.why_anew == f"{tmp_path}/settings.json is damaged: the servers start anew"
