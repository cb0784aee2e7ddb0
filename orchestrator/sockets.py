"""Sockets to the servers: have the kernel notice a peer that is gone, and ask it how long ago something came.

A network that loses packets without a word (a NAT that has forgotten a connection, a failover, a firewall) closes nothing. Only
who asks for it hears of it.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from typing import Protocol

UNACKNOWLEDGED = 30.0
"""Seconds after which data that the peer's machine does not take ends a connection. Not less: a server that is alive may leave
data unread for a while, as a broker in alarm does with what publishers send, and the kernel counts that as well."""

PROBES = 3
"""Keepalive probes without an answer after which a connection has ended."""

_LINUX = sys.platform == "linux"
_TCP = {socket.AF_INET, socket.AF_INET6}
_RECEIVED = 52
"""Where ``struct tcp_info`` (linux/tcp.h, part of the kernel's interface) has the milliseconds since data was received."""


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When the kernel asks a silent peer: after how many seconds, how often in seconds, and how many times in vain."""

    idle: int
    interval: int
    count: int


class Socket(Protocol):
    """A socket, or what an event loop gives out for one."""

    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def keepalive(silent_after: float) -> Keepalive:
    """Return when to ask, so that a peer is gone that has not been heard of for about this many seconds."""
    return Keepalive(max(1, round(silent_after / 2)), max(1, round(silent_after / 2 / PROBES)), PROBES)


def notice_loss(connected: Socket | None, silent_after: float) -> None:
    """Let the kernel end a connection when the peer's machine has not been heard of for about this many seconds."""
    if connected is None or connected.family not in _TCP:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not _LINUX:
        return
    probes = keepalive(silent_after)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probes.idle)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probes.interval)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes.count)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNACKNOWLEDGED))


def silent_for(connected: Socket | None) -> float | None:
    """Return for how many seconds nothing has come from the peer; ``None`` when the kernel does not say.

    The kernel counts, so a program that was stopped, or whose event loop was blocked, does not take its own silence for the
    peer's.
    """
    if not _LINUX or connected is None or connected.family not in _TCP:
        return None
    try:
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 4)
    except (OSError, ValueError):
        return None  # it is closed
    return int.from_bytes(info[_RECEIVED:], sys.byteorder) / 1000 if len(info) == _RECEIVED + 4 else None
