"""Processes of the operating system: find ours by their command line, start them, signal them, wait for them.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from .errors import ServicesError

POLL = 0.05
KILL_SECONDS = 30


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
    def me(cls) -> Account:
        return cls.of(os.geteuid())

    @classmethod
    def for_server(cls, preferred: str) -> Account:
        """The user for a new server: ourselves, or as root `preferred` or else nobody. No server runs as root."""
        if os.geteuid() != 0:
            return cls.me()
        for name in (preferred, "nobody"):
            try:
                return cls.of(pwd.getpwnam(name).pw_uid)
            except KeyError:
                continue
        raise ServicesError(f"no user to run {preferred} as: neither {preferred} nor nobody exists")

    def own(self, path: Path) -> None:
        """Give `path` to this user (only root has to and can)."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        return subprocess.run(["test", "-x", folder], cwd="/", check=False, **self.switch()).returncode == 0

    def switch(self) -> Switch:
        """Arguments for subprocess that make the child this user."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True)
class Process:
    pid: int
    uid: int
    command: str


def every_process() -> Iterator[Process]:
    """All processes of this machine with their command lines."""
    proc = Path("/proc")
    if not (proc / "self" / "cmdline").exists():
        yield from _from_ps()
        return
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield Process(int(entry.name), entry.stat().st_uid, command)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended while we looked, or hidden from us and so not ours


def _from_ps() -> Iterator[Process]:
    listing = subprocess.run(["ps", "-axwwo", "pid=,uid=,command="], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        pid, uid, command = [*line.split(None, 2), ""][:3]
        yield Process(int(pid), int(uid), command)


def find(pattern: re.Pattern[str]) -> list[Process]:
    """The processes that we may signal whose command line matches."""
    me = os.geteuid()
    return [found for found in every_process() if me in (0, found.uid) and pattern.search(found.command)]


def send(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until `condition` holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def end(found: Callable[[], list[Process]]) -> None:
    """SIGKILL whatever `found` finds, until it finds nothing any more (a dying parent may still have forked)."""

    def gone() -> bool:
        left = found()
        send(left, signal.SIGKILL)
        return not left

    if not wait_until(gone, KILL_SECONDS):
        raise ServicesError(f"SIGKILL does not end {', '.join(str(process.pid) for process in found())}")


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


def last_lines(log: Path, count: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return "(no log)"
