"""What no HTTP client sends: floods of headers and bytes that are not HTTP. Each gets a problem document, others are served."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.db.session import Database
from tests.background import Background
from tests.integration.api_answers import find_fault
from tests.integration.api_server import serve_api

LINE: Final = b"GET /api/health/live HTTP/1.1\r\n"
HOST: Final = b"Host: localhost\r\n"
POST: Final = b"POST /api/processes/x HTTP/1.1\r\n" + HOST

LARGE: Final = b"x" * 600_000
"""More than the server reads at once: what it has read whole is served, up to 256 KiB."""

WRONG: Final = {
    "many headers": LINE + HOST + b"".join(b"X-%d: some value\r\n" % number for number in range(25_000)) + b"\r\n",
    "a large header": LINE + HOST + b"X-Large: " + LARGE + b"\r\n\r\n",
    "headers without an end": LINE + HOST + b"X-Large: " + LARGE,
    "a long path": b"GET /" + LARGE + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": LINE + b"\r\n",
    "two hosts": LINE + HOST + b"Host: evil.example\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n[]",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "NUL in a header": LINE + HOST + b"X-Null: a\0b\r\n\r\n",
    "a space before the colon": LINE + HOST + b"X-Space : a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 64 + b"\r\n\r\n",
    "no HTTP": b"EHLO localhost\r\n\r\n",
}


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


@pytest.fixture
def url(background: Background, database_url: str) -> Iterator[str]:
    database = Database(database_url, pool_size=2, connect_timeout=30, application_name="tests")
    background.run(database.open())
    with serve_api(background, database) as served:
        yield served
    background.run(database.close())


def send(url: str, data: bytes) -> httpx.Response:
    """Send bytes and read the answer until the server closes."""
    address = urlsplit(url)
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = [line.partition(": ")[::2] for line in lines]
    return httpx.Response(int(status.split()[1]), headers=pairs, content=body)


def test_what_is_not_http_or_too_large_gets_a_problem_document_and_others_are_served(url: str) -> None:
    """Header floods, requests that a proxy could understand in another way, other protocols."""
    for name, data in WRONG.items():
        answer = send(url, data)
        assert answer.status_code == 400, name
        assert find_fault(answer.status_code, answer.headers, answer.text) is None, name
        assert "64 KiB" in json.loads(answer.text)["detail"], name
        assert answer.headers["connection"] == "close", name
        assert httpx.get(f"{url}/api/health/live", timeout=60).status_code == 200, name


def test_headers_below_the_limit_are_served(url: str) -> None:
    data = LINE + HOST + b"".join(b"X-%d: some value\r\n" % number for number in range(1000))
    assert send(url, data + b"Connection: close\r\n\r\n").status_code == 200
