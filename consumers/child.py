"""A child process of a consumer, as the consumer sees it: it can be started, spoken to, and seen to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator

from consumers.pipe import (
    LONGEST_LINE,
    Begin,
    Cancel,
    Count,
    Ended,
    Failed,
    Publish,
    Ready,
    Run,
    encode_line,
    from_child,
)

START_TIMEOUT = 120.0
"""Seconds in which a child must have imported the workflows."""

LAST_LINES = 0.5
"""Seconds in which the last lines of a child that has ended are read."""

END_TIMEOUT = 5.0
"""Seconds that a child gets to end once its connection is closed; then it is killed."""


class ChildError(Exception):
    """A child process could not be started."""


class ChildProcess:
    """A running child. It ends when its connection is closed, so it never outlives its consumer."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls) -> ChildProcess:
        """Start a child, and wait until it is ready.

        Raises:
            ChildError: it ended instead, or was not ready in time.
        """
        ours, theirs = socket.socketpair()
        try:
            # A fresh interpreter: a fork of this one would have its event loop, its connections and half of its threads.
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "consumers.isolated",
                    str(theirs.fileno()),
                    stdin=DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        except OSError as error:
            ours.close()
            raise ChildError(str(error)) from error
        child = cls(process, reader, writer)
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

    async def _until_ready(self) -> None:
        async for line in self.lines():
            if isinstance(line, Ready):
                return
            if isinstance(line, Failed):
                raise ChildError(line.error)
        raise ChildError(f"it {await self.wait()}")

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def send(self, line: Begin | Run | Cancel) -> None:
        """Send a line; nothing happens when the child has ended."""
        if not self._writer.is_closing():
            self._writer.write(encode_line(line))

    async def lines(self) -> AsyncIterator[Ready | Ended | Publish | Count | Failed]:
        """Yield what the child says until it ends."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                yield from_child.validate_json(line)

    async def wait(self) -> str:
        """Wait until the child has ended; return how, as a predicate. One that only fell silent is killed."""
        try:
            async with asyncio.timeout(END_TIMEOUT):
                code = await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
            return "closed its connection to the consumer"
        return f"was killed by {_name(-code)}" if code < 0 else f"exited with code {code}"

    async def close(self) -> None:
        """End the child."""
        self._writer.close()
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()

    async def _watch(self) -> None:
        """Stop reading soon after the child's end: a process that a step has forked may keep the connection open."""
        await self._process.wait()
        asyncio.get_running_loop().call_later(LAST_LINES, self._writer.close)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
