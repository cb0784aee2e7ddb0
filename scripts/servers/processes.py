"""Processes of the operating system: start them, find ours, signal them, wait for them.

A process is recognised by a marker in its command line, never by a remembered pid: pids are used again, pid files
survive crashes and folders get deleted under running servers, but a command line belongs to its process.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ServicesError

POLL = 0.05
KILL_SECONDS = 60


def user_for(server: str) -> int:
    """Return the user for a new server: the current one, or for root the server's own or nobody. No server runs as root."""
    if os.geteuid() != 0:
        return os.geteuid()
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return known.get(server, known["nobody"])


def own(path: Path, user: int) -> None:
    """Give `path` to a user. Only root has to, and can."""
    if os.geteuid() == 0:
        os.chown(path, user, pwd.getpwuid(user).pw_gid)


def switch(user: int) -> dict[str, Any]:
    """Return the arguments for subprocess that make the child this user's."""
    if os.geteuid() == user:
        return {}
    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def find(pattern: str) -> list[int]:
    """Return the pids of the processes that we may signal and whose command line matches."""
    me, found = os.geteuid(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if me in (0, entry.stat().st_uid) and re.search(pattern, command):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # has ended meanwhile, or is hidden from us and so not ours
    return found


def send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition` holds; return False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def kill_all(pattern: str) -> None:
    """Send SIGKILL to whatever `find` finds, until it finds nothing more: a dying parent may still have forked."""

    def gone() -> bool:
        left = find(pattern)
        send(left, signal.SIGKILL)
        return not left

    if not wait_until(gone, KILL_SECONDS):
        raise ServicesError(f"SIGKILL does not end {', '.join(map(str, find(pattern)))}")


def start(
    command: Sequence[str | Path],
    *,
    user: int,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    name: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that outlives us: own session, no terminal, output to `log`. `name` becomes its argv[0]."""
    arguments = [str(part) for part in command]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        return subprocess.Popen(
            [name or arguments[0], *arguments[1:]],
            executable=arguments[0],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            **switch(user),
        )
