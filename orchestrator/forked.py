"""What user code forks – with ``multiprocessing``, say – is a copy of the program, and must not act as the program.

The copy has the program's signal handlers, whose wake-up descriptor is the program's as well: a signal to the copy would stop
the program. And it has the program's connections, which so stay open after the program has died: its servers would go on
sending to nobody. Threads are not copied, and the event loop does not go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import structlog

from orchestrator.streams import flush_streams

logger = structlog.get_logger(__name__)

_DESCRIPTORS = Path("/proc/self/fd") if sys.platform == "linux" else Path("/dev/fd")
_STANDARD_STREAMS = {0, 1, 2}
_INTERNET = {socket.AF_INET, socket.AF_INET6}

_SIGNALS: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGCHLD: signal.SIG_DFL,
}
"""What a new process does with the signals that programs handle, and that libraries handle for them."""

_loops: list[asyncio.AbstractEventLoop] = []
_private: WeakSet[socket.socket] = WeakSet()
_parent: list[int] = []
"""The program of which this process is a fork, if it is one."""


@contextmanager
def guard_forks() -> Iterator[None]:
    """Make what is forked in the body neither act as this program nor keep its connections."""
    loop = asyncio.get_running_loop()
    _loops.append(loop)
    _register()
    try:
        yield
    finally:
        _loops.remove(loop)


def keep_private(connection: socket.socket) -> socket.socket:
    """Return a socket that forks do not get, although its kind does not show that it is the program's."""
    _private.add(connection)
    return connection


def end_if_forked(what: str) -> None:
    """End this process if it is a fork that returns from an author's function into the engine.

    Args:
        what: names the function in the log.
    """
    if _parent:
        logger.error("a forked process has returned from the function that forked it, and is ended", what=what)
        end_process(os.EX_SOFTWARE)


def end_children() -> None:
    """Terminate the processes that ``multiprocessing`` has left behind in this one; its own end would wait for some of them."""
    module = sys.modules.get("multiprocessing")
    if module is None or _parent:
        return
    left = module.active_children()
    for child in left:
        child.terminate()
    if left:
        logger.warning("processes that user code has left behind were terminated", pids=[child.pid for child in left])


def end_process(code: int) -> None:
    """End this process at once, without cleaning up: only what waits to be written is written."""
    with contextlib.suppress(Exception):
        end_children()
    flush_streams()
    os._exit(code)


_registered: list[bool] = []


def _register() -> None:
    # Nothing can be taken back here, so it is once a process.
    if not _registered:
        _registered.append(True)
        os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_become_fork)


_held = threading.local()


def _hold_signals() -> None:
    """Have the fork receive signals only when its handlers are its own: the program's would lose them, and wake the program."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _become_fork() -> None:
    if _loops:
        _parent.append(os.getppid())
        signal.set_wakeup_fd(-1)
        for number, handler in _SIGNALS.items():
            signal.signal(number, handler)
    _release_signals()
    if not _loops:
        return
    _replace_descriptors()
    for loop in _loops:
        # If the author's function awaits in the fork: there is nobody who would wake it.
        loop.call_soon(end_if_forked, "an async function")


def _replace_descriptors() -> None:
    """Put ``/dev/null`` in the place of the program's connections; objects that close theirs later must close no other file."""
    private = {one.fileno() for one in list(_private)}
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - numbers, not paths
        descriptor = int(name)
        if descriptor == nowhere or descriptor in _STANDARD_STREAMS:
            continue
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            # What is inheritable is meant for the fork: by an author, or by uvloop, which forks to start other programs.
            if not os.get_inheritable(descriptor) and (descriptor in private or _is_programs(descriptor)):
                os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _is_programs(descriptor: int) -> bool:
    """Return whether this is a connection, or watches connections; not a pipe, or a pair of sockets as of multiprocessing."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return str((_DESCRIPTORS / str(descriptor)).readlink()) == "anon_inode:[eventpoll]"
    found = socket.socket(fileno=descriptor)
    try:
        if found.type != socket.SOCK_STREAM:
            return False
        return found.family in _INTERNET or bool(found.getpeername())
    finally:
        found.detach()
