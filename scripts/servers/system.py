"""Users, processes and ports of this machine.

A process is recognized by a marker in its command line, never by a remembered pid: pids are used again, pid files
survive crashes and folders get deleted under running servers, but a command line belongs to its process.
"""

from __future__ import annotations

import os
import pwd
import random
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from . import ServicesError, say

POLL = 0.05
KILL_SECONDS = 60
PORT_SECONDS = 90  # a dying process closes its sockets late, and Linux keeps a closed connection for 60


def user_for(server: str) -> int:
    """Return the user for a new server: the current one, or for root the server's own or nobody. No server runs as root."""
    if os.geteuid() != 0:
        return os.geteuid()
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return known.get(server, known["nobody"])


def as_user(user: int) -> dict[str, Any]:
    """Return the arguments for subprocess that make the child this user's."""
    return {} if os.geteuid() == user else {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def write_private(path: Path, text: str, user: int) -> None:
    """Write a file that only this user can read, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchown(file.fileno(), user, -1)
        file.write(text)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition` holds; return False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def find(pattern: str) -> list[int]:
    """Return the pids of the processes that we may signal and whose command line matches."""
    me, found = os.geteuid(), []
    for entry in Path("/proc").glob("[0-9]*"):
        # It has ended meanwhile, or is hidden from us and so not ours.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if me in (0, entry.stat().st_uid) and re.search(pattern, command):
                found.append(int(entry.name))
    return found


def kill_all(pattern: str) -> None:
    """Send SIGKILL to whatever `find` finds, until it finds nothing more: a dying parent may still have forked."""

    def gone() -> bool:
        left = find(pattern)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    if not wait_until(gone, KILL_SECONDS):
        raise ServicesError(f"SIGKILL does not end {', '.join(map(str, find(pattern)))}")


def is_free(port: int) -> bool:
    """Return whether a server can listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do: a port with nothing but connections in TIME_WAIT that were accepted with this option is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_for_port(server: str, port: int) -> None:
    """Wait until a server can listen on its port, which it keeps for good: programs know it by URL."""
    if not is_free(port):
        say(f"{server}: waiting for port {port} …")
        if not wait_until(lambda: is_free(port), PORT_SECONDS):
            raise ServicesError(
                f"{server}: port {port} is in use by another program. End that program, "
                "or get servers with other ports and no data: scripts/services down --wipe, then up"
            )


def listens(host: str, port: int) -> bool:
    """Return whether a program listens there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def choose_ports(number: int) -> list[int]:
    """Return free ports below the range that outgoing connections are given.

    In that range a client that keeps reconnecting to a stopped server may be given the server's own port and connect
    to itself, and then the server cannot start again.
    """
    top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = list(range(15000, max(top, 16000)))
    random.shuffle(candidates)
    return list(islice(filter(is_free, candidates), number))
