"""What a fork of a program has of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

from orchestrator.forked import guard_forks, keep_private


async def test_a_fork_has_pipes_and_pairs_and_what_is_inheritable_and_nothing_of_the_programs(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        meant = stack.enter_context(socket.create_connection(listener.getsockname()))
        meant.set_inheritable(True)
        named = stack.enter_context(socket.socket(socket.AF_UNIX))
        named.bind(str(tmp_path / "named"))
        named.listen()
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.connect(str(tmp_path / "named"))
        pair = [stack.enter_context(one) for one in socket.socketpair()]
        private = [stack.enter_context(keep_private(one)) for one in socket.socketpair()]
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        expected = {listener: False, client: False, meant: True, local: False, pair[0]: True, private[0]: False} | {
            datagrams: True
        }
        with guard_forks():
            child = fork_and_look([(one.fileno(), kept) for one, kept in expected.items()])
        assert await asyncio.to_thread(end_of, child) == 0


def fork_and_look(expected: list[tuple[int, bool]]) -> int:
    """Fork; the fork ends with 0 if these descriptors are sockets, or are none any more, and signals do what they usually do."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        found = [stat.S_ISSOCK(os.fstat(descriptor).st_mode) for descriptor, _ in expected]
        has_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and signal.set_wakeup_fd(-1) == -1
        code = 0 if found == [kept for _, kept in expected] and has_default else 2
    finally:
        os._exit(code)


def end_of(child: int) -> int:
    """Wait for the end of a child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def test_a_fork_made_in_a_thread_has_default_signals_too() -> None:
    forks: list[int] = []
    with guard_forks():
        thread = threading.Thread(target=lambda: forks.append(fork_and_look([])))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert await asyncio.to_thread(end_of, forks[0]) == 0
