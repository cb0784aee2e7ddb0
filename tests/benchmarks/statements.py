"""A proxy in front of PostgreSQL that counts what one program sends. It needs no rights in the server and no log."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Self
from urllib.parse import urlsplit, urlunsplit

_HEADER = 5
"""Bytes of a message's type and length."""

_TLS_PLEASE = (80877103).to_bytes(4)


class CountingProxy:
    """Listens on a free port and passes everything on. ``async with`` opens and closes it.

    ``counts`` holds: ``executions`` (statements carried out), ``preparations`` (statements parsed), ``round trips``
    (answers that the program had to wait for), and ``sent`` and ``received`` (bytes).
    """

    def __init__(self, database_url: str) -> None:
        self._url = urlsplit(database_url)
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The database's URL by way of this proxy."""
        port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._url.netloc.rpartition("@")
        return urlunsplit(self._url._replace(netloc=f"{user}{at}127.0.0.1:{port}"))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._url.hostname, self._url.port or 5432)
        answers = asyncio.create_task(self._pass_on(server_reader, writer))
        self._tasks.add(answers)
        try:
            # The first message has no type; the question for TLS, which we could not read, may come before it.
            start = await _untyped(reader)
            if start[4:] == _TLS_PLEASE:
                writer.write(b"N")
                start = await _untyped(reader)
            server_writer.write(start)
            while True:
                header = await reader.readexactly(_HEADER)
                length = int.from_bytes(header[1:])
                self.counts["sent"] += length + 1
                server_writer.write(header + await reader.readexactly(length - 4))
                self._count(header[:1])
                await server_writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            answers.cancel()
            self._tasks.discard(answers)
            server_writer.close()
            writer.close()

    def _count(self, kind: bytes) -> None:
        if kind in b"QE":
            self.counts["executions"] += 1
        if kind == b"P":
            self.counts["preparations"] += 1
        if kind in b"QSH":
            self.counts["round trips"] += 1

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.counts["received"] += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


async def _untyped(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length) - 4)
