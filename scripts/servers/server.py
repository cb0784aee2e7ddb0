"""Servers: those that others run, known by URL, and what our two private ones have in common."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ServicesError
from .folder import Folder, Record
from .packages import programs_of
from .processes import find, kill_all, send, wait_until

START_SECONDS = 300
STOP_SECONDS = 60
DEFAULT_PORTS = {"postgresql": 5432, "amqp": 5672, "amqps": 5671}


class Given:
    """A server that others run: known by the URL in a variable, never started or stopped."""

    def __init__(self, name: str, variable: str, variables: dict[str, str]) -> None:
        self.name, self.variable, self._variables = name, variable, variables

    def environment(self) -> dict[str, str]:
        return self._variables

    def start(self) -> str:
        if (where := self.status()) is None:
            raise ServicesError(
                f"{self.name}: nothing answers at {'{}:{}'.format(*self._target())}, which {self.variable} names. "
                f"Start that server, or unset {self.variable} to get a private one."
            )
        return where

    def pid(self) -> None:
        return None

    def status(self) -> str | None:
        host, port = self._target()  # never the whole URL: it has the password in it
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            return None
        return f"given by {self.variable}, answers at {host}:{port}"

    def _target(self) -> tuple[str, int]:
        try:
            parts = urlsplit(self._variables[self.variable])
            port = parts.port or DEFAULT_PORTS[parts.scheme.partition("+")[0]]
        except (ValueError, LookupError):
            raise ServicesError(f"{self.variable} is not a URL with a known scheme or a port") from None
        return parts.hostname or "127.0.0.1", port


class Private(ABC):
    """A server of ours. `start`, `stop`, `kill` and `wipe` may be called in any state."""

    name: str
    ports: tuple[str, ...]
    ending: tuple[signal.Signals, signal.Signals]
    """Sent for an orderly end, and for a quick one before the data is deleted."""

    def __init__(self, folder: Folder, record: Record) -> None:
        self.folder, self.record = folder, record
        self.place = Path(record.data)
        self.data = self.place / "data"

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables by which the engine finds it."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it can be used."""

    @abstractmethod
    def describe(self) -> str:
        """Return where it can be reached, for people."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]:
        """Start its processes, and make its data if there is none."""

    @abstractmethod
    def main_process(self) -> str:
        """Return a pattern for the command line of the process to signal."""

    @abstractmethod
    def every_process(self) -> str:
        """Return a pattern for the command lines of all its processes."""

    @property
    def programs(self) -> Path:
        return programs_of(self.name)

    @property
    def user(self) -> int:
        return self.place.stat().st_uid

    def pid(self) -> int | None:
        """Return the process to kill to make it crash. A child that was just forked has the same command line."""
        return min(find(self.main_process()), default=None)

    def status(self) -> str | None:
        pid = self.pid()
        return f"pid {pid}, {self.describe()}" if pid and self.answers() else None

    def start(self) -> str:
        """Make it run and wait until it answers; return what happened."""
        began = time.monotonic()
        child: subprocess.Popen[bytes] | None = None
        if self.pid() is None:
            self.kill()  # what a crash has left
            self.folder.wait_for_ports(self.name)
            child = self.launch()
        elif (where := self.status()) is not None:
            return f"runs already, {where}"

        def ended() -> bool:
            return self.pid() is None and (child is None or child.poll() is not None)

        if not wait_until(lambda: self.status() is not None or ended(), START_SECONDS) or ended():
            raise ServicesError(f"{self.name} did not start; its log ends with\n{self.folder.last_lines(self.name)}")
        return f"started in {time.monotonic() - began:.1f} s, {self.status()}"

    def stop(self, *, at_once: bool = False) -> None:
        if (pid := self.pid()) is not None:
            send([pid], self.ending[at_once])
            wait_until(lambda: not find(self.main_process()), STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        kill_all(self.every_process())

    def wipe(self) -> None:
        """Stop it and delete its data; its ports, user and password stay."""
        self.stop(at_once=True)
        shutil.rmtree(self.data, ignore_errors=True)


Server = Given | Private
