"""URLs of servers that name several hosts: ``scheme://user:password@first:1,second:2/name?option=value``.

The form is PostgreSQL's own. A client library that knows one host only is given one of the URLs of :func:`split_hosts`.
"""

from __future__ import annotations

import os
import re
import socket
from uuid import UUID

# As SQLAlchemy reads a URL, a password may hold anything but an @.
_URL = re.compile(
    r"(?P<scheme>[^:/?#]*://)(?P<login>[^@/?#]*@|[^:/@]*:[^@]*@)?(?P<hosts>[^/?#]*)(?P<path>/[^?#]*)?(?P<rest>.*)",
    re.DOTALL,
)


HIGHEST_PORT = 65_535

_LONGEST_NAME = 63

OWNER_DIGITS = 8
"""How many digits of a consumer's id the names of its sessions have."""


def program_name() -> str:
    """Return where this program runs, for people who look for it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def session_name(program: str, owner: UUID | None = None) -> str:
    """Return the name of a program's sessions in PostgreSQL: what it is, where it runs, and whose they are if that matters.

    PostgreSQL cuts long names. So the beginning of a long host's name is left out: what tells hosts apart stands at its end.

    Args:
        owner: the consumer. ``host:pid`` may be another one's as well: after a container's restart, or in the host's network.
    """
    begin, end = f"orchestrator-{program} ", "" if owner is None else f" {owner.hex[:OWNER_DIGITS]}"
    room = _LONGEST_NAME - len(begin) - len(end)
    return f"{begin}{program_name()[-room:]}{end}"


def split_hosts(url: str) -> list[str]:
    """Return a URL for each of the hosts that a URL names, in their order; what has one host stays as it is."""
    found = _URL.fullmatch(url)
    if found is None:
        return [url]
    start, end = found.span("hosts")
    return [url[:start] + host.strip() + url[end:] for host in found["hosts"].split(",")]


def hide_password(url: str) -> str:
    """Return a URL as an operator may see it: without the password, and without the options, which may hold one."""
    found = _URL.fullmatch(url)
    if found is None:
        return "…"
    user = (found["login"] or "").rpartition("@")[0].partition(":")[0]
    # An @ in a password ought to be written %40: what is after the first one may still be the password.
    place = f"{found['hosts']}{found['path'] or ''}".rpartition("@")[2]
    return f"{found['scheme']}{user}{'@' if user else ''}{place}"


def host_of(url: str) -> str:
    """Return the host and the port, as the URL has them, of a URL with one host."""
    found = _URL.fullmatch(url)
    return "" if found is None else found["hosts"].rpartition("@")[2]


def has_usable_host(url: str) -> bool:
    """Return whether a URL with one host ends its login with its only @, and has a port that there can be, or none.

    Of a port that is too large the lookup of a name takes the rest of the division by 65,536.
    """
    found = _URL.fullmatch(url)
    host = "" if found is None else found["hosts"]
    _, colon, port = host.rpartition("]")[2].rpartition(":")
    is_port = port.isascii() and port.isdecimal() and int(port[:10]) <= HIGHEST_PORT
    return "@" not in host and (not colon or is_port)
