"""Start child processes for a consumer: forks of one process that has imported the workflows and does nothing else.

A fork takes milliseconds, a new interpreter that imports the workflows a second. The consumer itself cannot be forked: a fork
would have its connections, and its locks without the threads that hold them. If the import of a project starts threads or opens
connections, each child is a new interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import deque

from consumers.child import START_TIMEOUT, ChildError, ChildProcess
from consumers.pipe import Exited, Forked, Imported, NotForked, from_nursery
from orchestrator.forked import keep_private

LAST_WORDS = 1.0
"""Seconds that the process gets to end by itself. It may still be importing the workflows, and unable to react."""


class Nursery:
    """Manages the process that is forked. It is started with the first child, and ends with its consumer."""

    def __init__(self) -> None:
        self._opening = asyncio.Lock()
        self._control: socket.socket | None = None
        self._can_fork = False
        self._asked: deque[asyncio.Future[int]] = deque()
        self._ends: dict[int, asyncio.Future[int | None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._process: Process | None = None

    async def start_child(self) -> ChildProcess:
        """Start a child, and wait until it is ready.

        Raises:
            ChildError: it cannot be started.
        """
        async with self._opening:
            if self._control is None:
                await self._open()
        ours, theirs = _make_pair()
        try:
            with theirs:
                pid, end = await (self._fork(theirs) if self._can_fork else _spawn(theirs))
        except BaseException:
            ours.close()
            raise
        return await ChildProcess.connect(pid, end, ours)

    async def close(self) -> None:
        """End the process; running children go on until their connections are closed."""
        async with self._opening:
            control, self._control = self._control, None
            if control is not None:
                control.close()
            if self._reading is None or self._process is None:
                return
            _, late = await asyncio.wait({self._reading}, timeout=LAST_WORDS)
            if late:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await asyncio.wait({self._reading})

    async def _open(self) -> None:
        ours, theirs = _make_pair()
        reports, its_reports = _make_pair()
        with theirs, its_reports:
            self._process = process = await _execute("consumers.forks", theirs, its_reports)
        reader, writer = await asyncio.open_connection(sock=reports)
        imported: asyncio.Future[Imported] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(reader, writer, imported, process))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self._can_fork = (await imported).can_fork
        except BaseException as error:
            ours.close()
            if isinstance(error, TimeoutError):
                raise ChildError(f"the workflows were not imported within {START_TIMEOUT:g} s") from None
            raise
        self._control = ours

    async def _fork(self, connection: socket.socket) -> tuple[int, asyncio.Future[int | None]]:
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        assert self._control is not None, "the nursery is open"  # noqa: S101 - a programming error, not a user's
        try:
            socket.send_fds(self._control, [b"f"], [connection.fileno()])
        except OSError as error:
            raise ChildError(f"the process that is forked has ended: {error}") from error
        self._asked.append(asked)
        pid = await asked
        return pid, self._ends[pid]

    async def _read(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        imported: asyncio.Future[Imported],
        process: Process,
    ) -> None:
        """Handle the reports of the process until it ends."""
        loop = asyncio.get_running_loop()
        while line := await reader.readline():
            match from_nursery.validate_json(line):
                case Imported() as report if not imported.done():
                    imported.set_result(report)
                case Imported():
                    pass  # who waited for it was cancelled
                case Forked(pid=pid):
                    self._ends[pid] = loop.create_future()
                    _set(self._asked.popleft(), pid)
                case NotForked(error=error):
                    _fail(self._asked.popleft(), error)
                case Exited(pid=pid, code=code) if pid in self._ends:
                    _set(self._ends.pop(pid), code)
                case Exited():
                    pass  # a process that the import of the workflows has started
        writer.close()
        code = await process.wait()
        if self._control is not None:
            self._control.close()
            self._control = None
        problem = f"the process that is forked has ended with {code}; its output says why"
        _fail(imported, problem)
        for asked in self._asked:
            _fail(asked, problem)
        self._asked.clear()
        for end in self._ends.values():
            _set(end, None)
        self._ends.clear()


def _make_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that are not inherited by processes of steps, so that closing one end ends a child."""
    ours, theirs = socket.socketpair()
    return keep_private(ours), keep_private(theirs)


async def _spawn(connection: socket.socket) -> tuple[int, asyncio.Future[int | None]]:
    process = await _execute("consumers.isolated", connection)
    return process.pid, asyncio.ensure_future(_wait(process))


async def _wait(process: Process) -> int | None:
    return await process.wait()


async def _execute(module: str, *connections: socket.socket) -> Process:
    numbers = [one.fileno() for one in connections]
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *map(str, numbers), stdin=DEVNULL, pass_fds=numbers
        )
    except OSError as error:
        raise ChildError(str(error)) from error


def _set(future: asyncio.Future[int] | asyncio.Future[int | None], value: int | None) -> None:
    if not future.done():
        future.set_result(value)  # type: ignore[arg-type]  # None only for an end


def _fail(future: asyncio.Future[int] | asyncio.Future[Imported], problem: str) -> None:
    if not future.done():
        future.set_exception(ChildError(problem))
