"""Servers: those that others run, known by URL, and what our two private ones have in common."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from . import ServicesError
from .folder import Folder
from .packages import programs_of
from .system import as_user, find, kill_all, listens, user_for, wait_for_port, wait_until

START_SECONDS = 300
STOP_SECONDS = 60
DEFAULT_PORTS = {"postgresql": 5432, "amqp": 5672, "amqps": 5671}


class Given:
    """A server that others run: known by the URL in a variable, never started or stopped."""

    def __init__(self, name: str, variable: str, variables: dict[str, str]) -> None:
        self.name, self.variable, self._variables = name, variable, variables

    def environment(self) -> dict[str, str]:
        return self._variables

    def pid(self) -> None:
        return None

    def start(self) -> None:
        if self.status() is None:
            raise ServicesError(
                f"{self.name}: nothing answers at {'{}:{}'.format(*self._target())}, which {self.variable} names. "
                f"Start that server, or unset {self.variable} to get a private one."
            )

    def wait(self) -> str:
        return self.status() or "does not answer"

    def status(self) -> str | None:
        host, port = self._target()  # never the whole URL: it has the password in it
        return f"given by {self.variable}, answers at {host}:{port}" if listens(host, port) else None

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
    main_process: str
    """A pattern for the command line of the process to signal, followed by the folder's marker."""
    every_process: str
    """A pattern for the command lines of all its processes, likewise."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.place = folder.data / self.name
        self.data = self.place / "data"
        self.log = folder.path / f"{self.name}.log"
        self._began = 0.0
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables by which the engine finds it."""

    @abstractmethod
    def variables(self) -> dict[str, str]:
        """Return all variables that its programs see."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it can be used."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]:
        """Start its processes, and make its data if there is none."""

    def pid(self) -> int | None:
        """Return the process to kill to make it crash. A child that was just forked has the same command line."""
        return min(find(self.main_process + self.folder.marker), default=None)

    def status(self) -> str | None:
        pid = self.pid()
        return f"pid {pid}, port {self.folder.ports[self.ports[0]]}" if pid and self.answers() else None

    def start(self) -> None:
        """Make it run, unless it does."""
        if self.pid() is not None:
            return
        self.kill()  # what a crash has left
        for port in self.ports:
            wait_for_port(self.name, self.folder.ports[port])
        if not self.place.exists():
            self.place.mkdir(mode=0o700, parents=True)
            if (user := user_for(self.name)) != os.geteuid():
                os.chown(self.place, user, pwd.getpwuid(user).pw_gid)
        self._began = time.monotonic()
        self._child = self.launch()

    def wait(self) -> str:
        """Wait until it answers; return what happened."""

        def ended() -> bool:
            return self.pid() is None and (self._child is None or self._child.poll() is not None)

        if not wait_until(lambda: self.status() is not None or ended(), START_SECONDS) or ended():
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise ServicesError(f"{self.name} did not start; its log ends with\n{end}")
        how = f"started in {time.monotonic() - self._began:.1f} s" if self._child else "runs already"
        return f"{how}, {self.status()}"

    def stop(self, *, at_once: bool = False) -> None:
        if (pid := self.pid()) is not None:
            os.kill(pid, self.ending[at_once])
            wait_until(lambda: self.pid() is None, STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        kill_all(self.every_process + self.folder.marker)

    def wipe(self) -> None:
        """Stop it and delete its data; its ports, user and password stay."""
        self.stop(at_once=True)
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def user(self) -> int:
        """The user that it has run as since its data was made."""
        return self.place.stat().st_uid

    @property
    def programs(self) -> Path:
        return programs_of(self.name)

    def spawn(self, command: Sequence[str | Path], name: str | None = None) -> subprocess.Popen[bytes]:
        """Start a program that outlives us: own session, no terminal, output to the log. `name` becomes its argv[0]."""
        arguments = [str(part) for part in command]
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            return subprocess.Popen(
                [name or arguments[0], *arguments[1:]],
                executable=arguments[0],
                cwd=self.place,
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **as_user(self.user),
            )


Server = Given | Private
