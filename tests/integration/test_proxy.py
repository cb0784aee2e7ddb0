"""The TCP proxy of the acceptance tests does to a connection what its name says, while it runs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.proxy import Direction, Proxy
from tests.acceptance.waiting import until


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Provide a proxy before a server that answers with what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        with Proxy(listener.getsockname()) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1000):
            connection.sendall(data)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 30)


def ask(client: socket.socket, text: bytes = b"ping") -> bytes:
    client.sendall(text)
    return client.recv(1000)


def is_silent(client: socket.socket) -> bool:
    """Return whether nothing comes back and the connection stays open, for as long as it is worth to look."""
    client.settimeout(0.3)
    try:
        client.recv(1000)
    except TimeoutError:
        return True
    finally:
        client.settimeout(30)
    return False


def test_passing_on_and_slowly(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"ping"
        proxy.delay(0.2)
        began = time.monotonic()
        assert ask(client) == b"ping"
        assert time.monotonic() - began >= 0.4, "both ways"
        proxy.pass_on()
        assert ask(client) == b"ping"
    assert proxy.accepted == 1


@pytest.mark.parametrize("direction", Direction)
def test_a_connection_that_has_lost_data_stays_silent_and_a_new_one_works(proxy: Proxy, direction: Direction) -> None:
    with connect(proxy) as old:
        assert ask(old) == b"ping"
        proxy.swallow(frozenset({direction}))
        old.sendall(b"lost")
        until(lambda: proxy.dropped == 4, "the proxy has dropped it")
        assert is_silent(old)
        proxy.pass_on()
        old.sendall(b"too late")
        assert is_silent(old)
        with connect(proxy) as new:
            assert ask(new) == b"ping"


def test_new_connections_are_accepted_and_get_no_answer_while_data_is_swallowed(proxy: Proxy) -> None:
    proxy.swallow()
    with connect(proxy) as client:
        client.sendall(b"lost")
        assert is_silent(client)


def test_refusing_resets_what_there_is_and_what_comes(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client) == b"ping"
        proxy.refuse()
        with pytest.raises(ConnectionError):
            _until_reset(client)
    with pytest.raises(ConnectionError), connect(proxy) as client:
        _until_reset(client)
    proxy.pass_on()
    with connect(proxy) as client:
        assert ask(client) == b"ping"


def _until_reset(client: socket.socket) -> None:
    while client.recv(1000):
        pass
    raise ConnectionError("it has ended")
