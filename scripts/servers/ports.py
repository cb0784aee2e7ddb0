"""Ports of 127.0.0.1: choose a free one, and wait for one that is about to become free."""

from __future__ import annotations

import random
import socket
from collections.abc import Set as AbstractSet
from pathlib import Path

from .errors import ServicesError
from .processes import wait_until

TIME_WAIT_SECONDS = 90  # Linux keeps a closed connection for 60
DYING_SECONDS = 20  # until the kernel has closed the sockets of a process that was killed


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


def listens(port: int) -> bool:
    """Return whether a program listens on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_for_port(port: int) -> bool:
    """Wait until a port is free; return False when it does not become free in time."""
    wait_until(lambda: is_free(port) or listens(port), TIME_WAIT_SECONDS)
    return wait_until(lambda: is_free(port), DYING_SECONDS)


def free_port(avoid: AbstractSet[int]) -> int:
    """Return a free port below the range that outgoing connections are given.

    In that range a client that keeps reconnecting to a stopped server may be given the server's own port and connect
    to itself, and then the server cannot start again.
    """
    top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = [port for port in range(15000, max(top, 16000)) if port not in avoid]
    random.shuffle(candidates)
    for port in candidates:
        if is_free(port):
            return port
    raise ServicesError("no free port on 127.0.0.1")
