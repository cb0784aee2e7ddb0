"""A TCP proxy before a server, which can be slow, fall silent or refuse, and be made to behave again while it runs.

It has a thread of its own, so that it serves programs, and tests that are not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from enum import Enum
from typing import Self

from tests.background import Background
from tests.forwarder import HOST, Place, place_of, through


class Direction(Enum):
    """Which way data goes."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


BOTH = frozenset(Direction)


class Proxy:
    """Listens on a port of 127.0.0.1 and passes each connection on to one server.

    What it was told last counts for the connections that there are and for new ones.

    Args:
        place: host and port of the server.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._background = Background()
        self._delay = 0.0
        self._swallowed: frozenset[Direction] = frozenset()
        self._refuses = False
        self._last: tuple[bytes, bytes] | None = None
        self._serving: set[asyncio.Task[object]] = set()
        self._server = self._background.run(asyncio.start_server(self._serve, HOST, 0))
        self.accepted = 0
        """How many connections were accepted so far."""
        self.dropped = 0
        """How many bytes were swallowed so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def pass_on(self) -> None:
        """Pass everything on at once. A connection that has lost data stays silent: no network gives a gap back."""
        self._set(0.0, frozenset(), refuses=False)

    def delay(self, seconds: float) -> None:
        """Pass everything on, each piece of data so much later."""
        self._set(seconds, frozenset(), refuses=False)

    def swallow(self, directions: frozenset[Direction] = BOTH) -> None:
        """Accept connections and data, and drop the data that goes in these directions; close nothing.

        A new connection to the server is not made while nothing can reach it.
        """
        self._set(0.0, directions, refuses=False)

    def swallow_from(self, words: bytes, *, after: bytes = b"") -> None:
        """Swallow everything from the first piece of data on that has these words for the server.

        Args:
            after: what must have gone to the server on the same connection, in this piece or before.
        """
        self._last = (words, after)

    def refuse(self) -> None:
        """Reset the connections that there are, and every new one."""
        self._set(0.0, frozenset(), refuses=True)
        self.cut()

    def cut(self) -> None:
        """Reset the connections that there are."""
        self._background.run(self._cut())

    def close(self) -> None:
        """Listen no more, and reset what there is."""
        self._background.run(self._end())
        self._background.close()

    def _set(self, delay: float, swallowed: frozenset[Direction], *, refuses: bool) -> None:
        self._delay, self._swallowed, self._refuses = delay, swallowed, refuses

    async def _cut(self) -> None:
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        opened = [writer]
        flows: list[asyncio.Task[None]] = []
        # When it is cut it is cancelled; the stream's own callback fails for a task that was.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self._refuses:
                pass
            elif self._swallowed:
                await self._drop(reader)  # until its client goes
            else:
                answers, there = await asyncio.open_connection(*self._place)
                opened.append(there)
                flows = [
                    asyncio.create_task(self._copy(reader, there, Direction.TO_SERVER)),
                    asyncio.create_task(self._copy(answers, writer, Direction.TO_CLIENT)),
                ]
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        for flow in flows:
            flow.cancel()
        for one in opened:
            one.transport.abort()
        self._serving.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(pieces, writer))
        loop = asyncio.get_running_loop()
        is_near = False
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    if direction is Direction.TO_SERVER and self._last is not None:
                        words, after = self._last
                        is_near = is_near or after in data
                        if is_near and words in data:
                            self._last = None
                            self.swallow()
                    if direction in self._swallowed:
                        self.dropped += len(data)
                        await self._drop(reader)
                        await asyncio.Event().wait()  # an end is swallowed as well
                    pieces.put_nowait((loop.time() + self._delay, data))
                pieces.put_nowait((loop.time(), b""))
                await writing
        finally:
            writing.cancel()

    @staticmethod
    async def _write(pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await pieces.get()
                if not data:
                    return
                await asyncio.sleep(due - loop.time())
                writer.write(data)
                await writer.drain()

    async def _drop(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                self.dropped += len(data)


@contextlib.contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy before the server of a URL; yield it and the URL that leads through it."""
    with Proxy(place_of(url)) as proxy:
        yield proxy, through(url, proxy.port)
