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
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .errors import ServicesError

POLL = 0.05
KILL_SECONDS = 60


class Switch(TypedDict, total=False):
    """The arguments of subprocess that change the child's user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """The user that a server runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, uid: int) -> Account:
        entry = pwd.getpwuid(uid)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def for_server(cls, preferred: str) -> Account:
        """Return the user for a new server: the current one, or for root `preferred` or nobody. No server runs as root."""
        if os.geteuid() != 0:
            return cls.of(os.geteuid())
        known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
        return cls.of(known[preferred if preferred in known else "nobody"])

    def own(self, path: Path) -> None:
        """Give `path` to this user. Only root has to, and can."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        return subprocess.run(["test", "-x", folder], cwd="/", check=False, **self.switch()).returncode == 0

    def switch(self) -> Switch:
        """Return the arguments for subprocess that make the child this user."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


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
    account: Account,
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
            **account.switch(),
        )
