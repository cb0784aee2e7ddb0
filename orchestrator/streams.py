"""Standard streams that never harm a program: what it writes waits in memory for a thread, and what is lost is counted.

A reader that has gone, a full disk and a pipe that nobody reads are so nobody's error: no line raises, and none is waited for.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

LIMIT = 4 * 1024 * 1024
"""Bytes that wait for the thread, at most; lines beyond it are lost."""

FLUSH_TIMEOUT = 1.0
"""Seconds for what waits, when a program ends."""

LINGER = 0.01
"""Seconds after a write for which lines gather before the next one. To wake the thread for each line costs the program more than
to make the line: whoever writes it loses its turn to the thread. A line that comes alone is written at once."""

_PIECE = 64 * 1024
_NOT_READ = "nobody reads it"


class Lines:
    """Writes lines to a descriptor in a daemon thread, which is started with the first line.

    Args:
        descriptor: of an open file; it stays open.
    """

    format_loss: Callable[[int, str], str]
    """Returns the line that says how many were lost, and why."""

    def __init__(self, descriptor: int) -> None:
        self.format_loss = _format_loss
        self.total_lost = 0
        """Lines that this process has lost."""
        self.is_fork = False
        self._descriptor = descriptor
        self._forget()
        os.register_at_fork(after_in_child=self._become_fork)

    def _forget(self) -> None:
        # With a lock that its holder may take again: the garbage collector and signals interrupt a line, and may write others.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: list[bytes] = []
        self._size = self._lost = 0
        self._reason = ""
        self._is_torn = self._is_idle = self._is_ending = self._is_waited_for = False
        self._thread: threading.Thread | None = None

    def _become_fork(self) -> None:
        """Begin anew in a fork, which has neither the thread nor, perhaps, the lock; its parent writes what waited."""
        self._forget()
        self.is_fork = True

    def write(self, data: bytes) -> None:
        """Have whole lines written; never raises, and never waits for who reads them."""
        with self._changed:
            if self._size + len(data) > LIMIT:
                self._lose(data, _NOT_READ)
                return
            self._waiting.append(data)
            self._size += len(data)
            if self._thread is None:
                self._start()
            elif self._is_idle:
                self._is_idle = False
                self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_TIMEOUT) -> bool:
        """Wait until everything is written or lost; return whether it is so in time."""
        with self._changed:
            self._is_waited_for = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._thread is None or not self._size, seconds)

    def end_thread(self) -> None:
        """Write what waits, and end the thread if that takes no longer than usual; the next line starts another."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(FLUSH_TIMEOUT)
        self._is_ending = False

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        try:
            self._thread = thread
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the machine has no more threads
            self._thread = None
            data, self._waiting, self._size = b"".join(self._waiting), [], 0
            self._write(data)

    def _run(self) -> None:
        while (data := self._take()) is not None:
            self._write(data)
            with self._changed:
                self._size = max(0, self._size - len(data)) if self._waiting else 0
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._is_waited_for or self._is_ending, LINGER)

    def _take(self) -> bytes | None:
        with self._changed:
            while not self._waiting:
                if self._is_ending:
                    self._thread = None
                    return None
                self._is_idle = True
                self._changed.wait()
            self._is_idle = False
            self._is_waited_for = False
            waiting, self._waiting = self._waiting, []
        return b"".join(waiting)

    def _write(self, data: bytes) -> None:
        """Write what was taken, and then how many lines were lost before or after it."""
        if not self._put(b"\n" + data if self._is_torn else data):
            return
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost and not self._put(self.format_loss(lost, self._reason).encode("utf-8", "backslashreplace") + b"\n"):
            with self._changed:
                self._lost += lost - 1  # the line about them is none of them
                self.total_lost -= 1

    def _put(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(self._descriptor, rest[:_PIECE])
            except BlockingIOError:  # a program that shares the descriptor has set it so
                select.select([], [self._descriptor], [], 1.0)
                continue
            except OSError as error:
                self._is_torn = self._is_torn or (len(rest) < len(data) and not data.endswith(b"\n", 0, -len(rest)))
                with self._changed:
                    self._lose(bytes(rest), error.strerror or str(error))
                return False
            rest = rest[written:]
            self._is_torn = False
        return True

    def _lose(self, data: bytes, reason: str) -> None:
        count = data.count(b"\n") or 1
        self._lost += count
        self.total_lost += count
        self._reason = reason


class GuardedStream(io.TextIOWrapper):
    """A standard stream for all that prints; each line goes to :class:`Lines`."""

    def __init__(self, lines: Lines, like: TextIO) -> None:
        self.lines = lines
        buffer = io.BufferedWriter(_Raw(lines, like.fileno()))
        super().__init__(buffer, encoding=like.encoding, errors=like.errors, line_buffering=True)

    def flush(self) -> None:
        """Hand over half a line as well; a fork waits until it is written, because multiprocessing ends it without more ado."""
        super().flush()
        if self.lines.is_fork:
            self.lines.flush()


class _Raw(io.RawIOBase):
    def __init__(self, lines: Lines, descriptor: int) -> None:
        self._lines, self._descriptor = lines, descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        self._lines.write(bytes(data))
        return len(data)


def guard_streams() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` streams that never raise or wait, for a program that runs for long."""
    shared: Lines | None = None
    for name in ("stderr", "stdout"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None or isinstance(stream, GuardedStream):
            continue
        with contextlib.suppress(OSError):
            stream.flush()
        try:
            descriptor = stream.fileno()
        except OSError:  # it is in memory, where nobody can close it
            continue
        # What goes to one file keeps its order.
        lines = shared if shared is not None and os.path.sameopenfile(2, descriptor) else Lines(descriptor)
        shared = shared or lines
        setattr(sys, name, GuardedStream(lines, stream))
    atexit.register(flush_streams)


def find_lines() -> list[Lines]:
    """Return what the guarded streams write to."""
    streams = (sys.stderr, sys.stdout)
    return list({id(one.lines): one.lines for one in streams if isinstance(one, GuardedStream)}.values())


def flush_streams() -> None:
    """Write out what waits; where nobody reads, wait for a moment only. Before every end of the process."""
    until = time.monotonic() + FLUSH_TIMEOUT
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                stream.flush()
    for lines in find_lines():
        lines.flush(max(0.0, until - time.monotonic()))


def _format_loss(count: int, reason: str) -> str:
    return f"{count} lines were lost here: {reason}"
