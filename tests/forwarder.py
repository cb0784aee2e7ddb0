"""A TCP forwarder: the one address before several servers, and a network that tests can cut or freeze."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit, urlunsplit

HOST = "127.0.0.1"
Place = tuple[str, int]


def place_of(url: str) -> Place:
    """Return the server of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or {"amqp": 5672}.get(parts.scheme, 5432)


def through(url: str, *ports: int) -> str:
    """Return a URL that leads to ports of this machine instead of its server."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=login + at + ",".join(f"{HOST}:{port}" for port in ports)))


class Forwarder:
    """Listens on a port of 127.0.0.1 and passes each connection on to the server that is chosen then.

    Args:
        choose: returns the server for a new connection; ``None`` refuses it.
    """

    def __init__(self, choose: Callable[[], Place | None]) -> None:
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.connections = 0
        """How many were accepted so far."""

    async def __aenter__(self) -> Self:
        await self.listen(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def listen(self, port: int) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(self._pass_on, HOST, port)

    async def close(self) -> None:
        """Refuse new connections and cut those that there are."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        self._flows.set()
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Accept connections, but pass nothing on, as a frozen server does."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on again, beginning with what has come meanwhile."""
        self._flows.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        place = self._choose()
        there: asyncio.StreamWriter | None = None
        try:
            if place is not None:
                await self._flows.wait()
                back, there = await asyncio.open_connection(*place)
                self._writers.add(there)
                flows = [asyncio.create_task(one) for one in (self._copy(reader, there), self._copy(back, writer))]
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
                for flow in flows:
                    flow.cancel()
        except OSError:
            return  # the server refuses; so do we
        finally:
            for one in (writer, there):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
