"""A consumer's handle of a child process: send lines to it, read its lines, and see how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator

from consumers.pipe import (
    LONGEST_LINE,
    Begin,
    Cancel,
    Count,
    Ended,
    Ending,
    Failed,
    Publish,
    Ready,
    Run,
    encode_line,
    from_child,
)

START_TIMEOUT = 120.0
"""Seconds within which a process must have imported the workflows."""

LAST_LINES = 0.5
"""Seconds in which the last lines of a child that has ended are read."""

END_TIMEOUT = 5.0
"""Seconds that a child gets to end once its connection is closed; then it is killed."""


class ChildError(Exception):
    """A child process could not be started, or has ended before it ran a step."""


class ChildProcess:
    """A running child. It ends when its connection is closed, so it never outlives its consumer.

    Args:
        end: its exit code once it has ended, negative for a signal; ``None`` when that is unknown.
    """

    def __init__(
        self, pid: int, end: asyncio.Future[int | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self._end = end
        self._reader = reader
        self._writer = writer
        self._reason: str | None = None
        # A process forked by a step may keep the connection open.
        loop = asyncio.get_running_loop()
        end.add_done_callback(lambda _: loop.call_later(LAST_LINES, writer.close))

    @classmethod
    async def connect(cls, pid: int, end: asyncio.Future[int | None], connection: socket.socket) -> ChildProcess:
        """Wait until a child that has just been started is ready, and return it.

        Raises:
            ChildError: it ended instead, or was not ready in time.
        """
        child = cls(pid, end, *await asyncio.open_connection(sock=connection, limit=LONGEST_LINE))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await child._until_ready()
        except TimeoutError:
            await child.close()
            raise ChildError(f"it was not ready within {START_TIMEOUT:g} s") from None
        except BaseException:
            await child.close()
            raise
        return child

    async def begin(self, line: Begin) -> None:
        """Let the child connect to the database. From here on it runs steps.

        Raises:
            ChildError: it ended instead.
        """
        self.send(line)
        await self._until_ready()

    def send(self, line: Begin | Run | Cancel) -> None:
        """Send a line; do nothing when the child has ended."""
        if not self._writer.is_closing():
            self._writer.write(encode_line(line))

    async def lines(self) -> AsyncIterator[Ready | Ended | Publish | Count | Failed]:
        """Yield the lines of the child until it ends."""
        with contextlib.suppress(ConnectionError):
            while text := await self._reader.readline():
                line = from_child.validate_json(text)
                if isinstance(line, Ending):
                    self._reason = line.how
                else:
                    yield line

    async def wait(self) -> str | None:
        """Wait for the end of a child whose lines have ended; kill it if it only closed its connection.

        Returns:
            How it ended, as a predicate; ``None`` when that is unknown.
        """
        if not await self._ends():
            return "closed its connection to the consumer"
        if self._reason is not None:
            return self._reason
        code = self._end.result()
        if code is None:
            return None
        return f"was killed by {_name(-code)}" if code < 0 else f"exited with code {code}"

    async def close(self) -> None:
        """End the child."""
        self._writer.close()
        await self._ends()

    async def _until_ready(self) -> None:
        async for line in self.lines():
            if isinstance(line, Ready):
                return
            if isinstance(line, Failed):
                raise ChildError(line.error)
        raise ChildError(f"it {await self.wait() or 'has ended'}")

    async def _ends(self) -> bool:
        """Wait until it has ended, and kill it after a while; return whether it ended by itself."""
        ended, _ = await asyncio.wait({self._end}, timeout=END_TIMEOUT)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await asyncio.wait({self._end})
        return bool(ended)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
