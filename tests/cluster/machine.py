"""What the servers have in common: a folder, a user without rights, and a process group that is ended by its id."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from servers.system import as_user, choose_ports, listens, user_for, write_private

from tests.acceptance.waiting import until

HOST = "127.0.0.1"
START_SECONDS = 180.0
PORTS = 20
"""More than one run needs."""


class Machine:
    """Everything that one run has started, and where it lies."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="orchestrator-cluster-"))
        self.folder.chmod(0o711)  # root's servers run as other users, who must be able to pass through
        self._daemons: list[Daemon] = []
        self._ports = choose_ports(PORTS)

    def port(self) -> int:
        """Return a port that is free, and not given to another server of this run."""
        return self._ports.pop()

    def place(self, name: str, user: int) -> Path:
        """Make a folder for a server."""
        path = self.folder / name
        path.mkdir(mode=0o700)
        os.chown(path, user, -1)
        return path

    def daemon(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        place: Path,
        user: int,
        variables: Mapping[str, str],
        argv0: str | None = None,
    ) -> Daemon:
        """Start a server; it ends with this run at the latest."""
        arguments = [str(part) for part in command]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [argv0 or arguments[0], *arguments[1:]],
                executable=arguments[0],
                cwd=place,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                **as_user(user),
            )
        made = Daemon(name, process, self.folder / f"{name}.log")
        self._daemons.append(made)
        return made

    def close(self, *, keep: bool) -> None:
        """End everything, the newest first, and delete the folder."""
        for one in reversed(self._daemons):
            one.kill()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


class Daemon:
    """A server's process group."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes: PostgreSQL's are not in its process group."""
        if not self.runs:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._process.pid)
            for process in (main, *main.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)
        self._process.wait(30)

    def wait_for_port(self, port: int) -> None:
        """Wait until it listens."""

        def answers() -> bool:
            assert self.runs, f"{self.name} has ended:\n{self.log.read_text(errors='replace')[-3000:]}"
            return listens(HOST, port)

        until(answers, f"{self.name} listens on port {port}", START_SECONDS, every=0.2)


def run(
    command: Sequence[str | Path], *, place: Path, user: int, variables: Mapping[str, str], seconds: float = 120
) -> str:
    """Run a server's tool to its end and return what it prints."""
    outcome: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command],
        cwd=place,
        env=dict(variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        **as_user(user),
    )
    assert outcome.returncode == 0, f"{command}: {outcome.stdout}{outcome.stderr}"
    return outcome.stdout


__all__ = ["HOST", "Daemon", "Machine", "run", "user_for", "write_private"]
