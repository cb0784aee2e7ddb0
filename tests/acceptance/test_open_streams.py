"""Open streams and sockets do not keep the API from ending, and events reach their readers through the whole engine."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance.conftest import MakeInstallation
from tests.acceptance.installation import Installation
from tests.acceptance.programs import Api
from tests.acceptance.waiting import until

SECONDS = 60.0


class Connection:
    """A connection to the API, byte by byte."""

    def __init__(self, api: Api, window: int | None = None) -> None:
        address = urlsplit(api.url)
        self._socket = socket.socket()
        if window is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._socket.settimeout(SECONDS)
        self._socket.connect((address.hostname, address.port))
        self.received = b""

    def send(self, *lines: str, body: str = "") -> None:
        """Send the head of a request, and a body or its beginning."""
        self._socket.sendall("\r\n".join([*lines, "Host: localhost", "", body]).encode())

    def send_rest(self, text: str) -> None:
        """Send the rest of a body."""
        self._socket.sendall(text.encode())

    def read_until(self, end: bytes) -> bytes:
        """Read until something has come."""
        while end not in self.received:
            chunk = self._socket.recv(65536)
            assert chunk, f"closed before {end!r}: {self.received[-500:]!r}"
            self.received += chunk
        return self.received

    def read_all(self) -> bytes:
        """Read until the other side closes."""
        while chunk := self._socket.recv(65536):
            self.received += chunk
        return self.received

    def sequences(self, process_id: UUID, last: int) -> list[int]:
        """Return the numbers of a process's events, once the last one has come."""
        found: list[int] = []
        while not found or found[-1] != last:
            complete = self.received.rpartition(b"\r\n")[0]
            events = [json.loads(line[6:]) for line in complete.split(b"\r\n") if line.startswith(b"data: ")]
            found = [one["sequence"] for one in events if one["process_id"] == str(process_id)]
            if found[-1:] != [last]:
                self.received += self._socket.recv(65536)
        return found

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def stream(api: Api, *headers: str, window: int | None = None) -> Connection:
    """Open a stream of events."""
    connection = Connection(api, window)
    connection.send("GET /api/events HTTP/1.1", *headers)
    return connection


@contextmanager
def opened(*connections: Connection) -> Iterator[None]:
    """Close connections at the end."""
    with ExitStack() as stack:
        for one in connections:
            stack.enter_context(closing(one))
        yield


def fill_the_log(engine: Installation, api: Api) -> str:
    """Store events that no buffer holds, and return the id of the stream before them."""
    with closing(stream(api)) as connection:
        connection.read_until(b"\nid: ")
        last_id = connection.read_until(b"\r\n\r\n").partition(b"\nid: ")[2].partition(b"\r")[0].decode()
    (process_id,) = {UUID(api.call("POST", "/processes/one_step", json=[]).json()["id"])}
    engine.write(
        "INSERT INTO process_steps (process_id, sequence, kind, name, attempt, status, delta, author, started_at, finished_at)"
        " SELECT $1, n, 'step', repeat('x', 50000), 1, 'success', '{}', 'ana', now(), now() FROM generate_series(100, 399) n",
        process_id,
    )
    return last_id


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_ends_the_api_whatever_is_open(installations: MakeInstallation, workers: str) -> None:
    """Readiness says so first, requests in progress finish, streams and sockets get their end."""
    engine = installations(ORCHESTRATOR_DRAIN_GRACE="3")
    api = engine.api("--workers", workers)
    until(lambda: api.output().count("API started") == int(workers), "all workers serve")
    last_id = fill_the_log(engine, api)
    idle, frozen = stream(api), stream(api, f"Last-Event-ID: {last_id}", window=4096)
    kept, posting, probing = Connection(api), Connection(api), [Connection(api) for _ in range(8)]
    url = api.url.replace("http", "ws")
    with opened(idle, frozen, kept, posting, *probing), connect(f"{url}/api/ws/events") as web_socket:
        idle.read_until(b": following")
        frozen.read_until(b"event: step.event")
        kept.send("GET /api/health/live HTTP/1.1")
        kept.read_until(b'"alive"')
        head = ("POST /api/processes/one_step HTTP/1.1", "Content-Type: application/json", "Content-Length: 2")
        posting.send(*head, body="[")
        web_socket.send("__ping__")
        assert web_socket.recv(SECONDS) == "__pong__"
        api.signal(signal.SIGTERM)
        idle.read_until(b'event: end\r\ndata: {"reason": "stopping"}\r\nretry: ')
        # The streams end at the very moment at which readiness changes, and before the sockets are closed.
        for one in probing:
            one.send("GET /api/health/ready HTTP/1.1")
            assert b"503" in one.read_until(b"\r\n")
        posting.send_rest("]")
        assert b"201 Created" in posting.read_until(b'"created":true')
        assert kept.read_all().endswith(b'{"status":"alive"}')
        with pytest.raises(ConnectionClosed) as closed:
            web_socket.recv(SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert api.exit_code(30) == 0
    assert api.output().count("API stopped") == int(workers)


def test_every_change_of_a_process_reaches_streams_and_sockets(engine: Installation) -> None:
    """Start, callback, progress, retry, abort, whoever has done it, by message or over HTTP."""
    api = engine.api()
    following, url = stream(api), api.url.replace("http", "ws")
    with opened(following), connect(f"{url}/api/ws/events") as web_socket:
        following.read_until(b": following")

        def told_of(process_id: UUID) -> None:
            expected = {"name": "invalidateCache", "value": {"type": "processes", "id": str(process_id)}}
            while json.loads(web_socket.recv(SECONDS)) != expected:
                pass

        called = UUID(api.call("POST", "/processes/calls_out", json=[]).json()["id"])
        told_of(called)
        engine.open_gate(f"order-{called}")
        engine.wait_for(called, "awaiting_callback")
        engine.answer(engine.token(called), {"ok": True})
        engine.wait_for(called, "completed")
        told_of(called)
        aborted = engine.start("calls_out")
        told_of(aborted)
        engine.abort(aborted)
        engine.wait_for(aborted, "aborted")
        told_of(aborted)
        for process_id in (called, aborted):
            entries = [entry.sequence for entry in engine.log(process_id)]
            following.read_until(f'"process_id":"{process_id}"'.encode())
            assert following.sequences(process_id, entries[-1]) == entries
    assert api.stop() == 0


def test_a_stream_continues_at_another_program(engine: Installation) -> None:
    """An id is of the log, not of the program that has sent it."""
    first, second = engine.api(), engine.api()
    with httpx.stream("GET", f"{first.url}/api/events", timeout=SECONDS) as response:
        last_id = next(line for line in response.iter_lines() if line.startswith("id: "))[4:]
    process_id = engine.finish("one_step")
    headers, params = {"Last-Event-ID": last_id}, {"process": str(process_id)}
    seen = []
    with httpx.stream("GET", f"{second.url}/api/events", headers=headers, params=params, timeout=SECONDS) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
                if seen[-1]["status"] == "completed" and "step" not in seen[-1]:
                    break
    assert [one["sequence"] for one in seen] == [entry.sequence for entry in engine.log(process_id)]
    assert [first.stop(), second.stop()] == [0, 0]
