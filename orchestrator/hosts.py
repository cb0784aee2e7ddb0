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
_PORT = re.compile("[0-9]{1,5}")

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
    # What is after the first @ may still be the password.
    place = f"{found['hosts']}{found['path'] or ''}" if _has_one_login(found) else "…"
    return f"{found['scheme']}{user}{'@' if user else ''}{place}"


def host_of(url: str) -> str:
    """Return the host and the port, as the URL has them, of a URL with one host."""
    found = _URL.fullmatch(url)
    return "" if found is None else found["hosts"].rpartition("@")[2]


def options_of(url: str) -> str:
    """Return the query of a URL, whatever its password holds."""
    found = _URL.fullmatch(url)
    return "" if found is None else found["rest"].partition("?")[2]


def has_one_login(url: str) -> bool:
    """Return whether no other @ follows the one that ends the login of a URL; the value of an option may have one.

    Client libraries disagree about which of several ends it.
    """
    found = _URL.fullmatch(url)
    return found is not None and _has_one_login(found)


def has_usable_port(url: str) -> bool:
    """Return whether a URL with one host has a port that there can be, or none.

    Of a port that is too large the lookup of a name takes the rest of the division by 65,536.
    """
    _, colon, port = host_of(url).rpartition("]")[2].partition(":")
    return not colon or (_PORT.fullmatch(port) is not None and int(port) <= HIGHEST_PORT)


def _has_one_login(found: re.Match[str]) -> bool:
    return "@" not in f"{found['hosts']}{found['path'] or ''}{found['rest'].partition('=')[0]}"
