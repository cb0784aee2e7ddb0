"""A private PostgreSQL from installed programs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from .errors import ServicesError, say
from .folder import Folder, Record, write_private
from .packages import programs_of
from .processes import Account, Process, end, find, last_lines, send, start, wait_until
from .server import Server, postgres_answers

START_SECONDS = 120
STOP_SECONDS = 60


class Postgres(Server):
    name = "postgres"
    ports = ("postgres",)

    def __init__(self, folder: Folder, record: Record) -> None:
        self.folder = folder
        self.record = record
        self.place = Path(record.data)
        self.cluster = self.place / "data"

    @property
    def programs(self) -> Path:
        return programs_of(self.name)

    @property
    def port(self) -> int:
        return self.record.ports["postgres"]

    def status(self) -> str | None:
        pid = self.pid()
        return f"pid {pid}, port {self.port}" if pid and self.ready() else None

    def ready(self) -> bool:
        return postgres_answers(self.port)

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.record.password}@127.0.0.1:{self.port}"
        return {"ORCHESTRATOR_DATABASE_URL": f"postgresql+asyncpg://{login}/orchestrator"}

    def pid(self) -> int | None:
        # the postmaster keeps the command line that it was started with; its children replace theirs by a title
        parents = [process for process in self._processes() if " -D " in process.command]
        return min((process.pid for process in parents), default=None)

    def _processes(self, marker: str | None = None) -> list[Process]:
        # cluster_name appears in the title of each of PostgreSQL's processes
        return find(re.compile(rf"^(\S*/)?postgres\b.*{marker or self.folder.marker}\b"))

    def start(self) -> str:
        began = time.monotonic()
        self._stop_left_behind()
        if self.pid() is None:
            self._clear_crash()
            if not self.cluster.exists():
                say("postgres: making a database cluster …")
                self._make_cluster()
            self.folder.wait_for_ports(self.name)
            self._launch()
        elif (where := self.status()) is not None:
            return f"runs already, {where}"
        if not wait_until(lambda: self.pid() is None or self.ready(), START_SECONDS) or not self.pid():
            raise ServicesError(f"postgres did not start; its log ends with\n{last_lines(self.folder.log(self.name))}")
        return f"started in {time.monotonic() - began:.1f} s, {self.status()}"

    def _clear_crash(self) -> None:
        """After a crash: end what is left of the old server, and believe the process list rather than its pid file."""
        self.kill()
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def _stop_left_behind(self) -> None:
        if marker := self.folder.left_behind:
            end(lambda: self._processes(marker))

    def _launch(self) -> None:
        settings = {
            "cluster_name": self.folder.marker,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_line_prefix": "%m [%p] %q%a ",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        account = self._account()
        child = start(
            [self.programs / "postgres", "-D", self.cluster, *options],
            account=account,
            folder=self.place,
            environment=self._environment(),
            log=self.folder.log(self.name),
        )
        wait_until(lambda: self.pid() is not None or child.poll() is not None, 5)

    def _make_cluster(self) -> None:
        """A cluster with our role and database, put in place only when it is complete."""
        fresh = self.place / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self.place / "password"
        write_private(password, self.record.password + "\n")
        self._account().own(password)
        encoding = ["--encoding=UTF8", "--locale=C"]
        login = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}"]
        self._run(["initdb", "-D", fresh, *encoding, *login])
        # Single-user mode needs no connection, so there is never a moment without a password.
        self._run(
            ["postgres", "--single", "-D", fresh, "postgres"],
            f"CREATE ROLE orchestrator LOGIN CREATEDB PASSWORD '{self.record.password}'\n"
            "CREATE DATABASE orchestrator OWNER orchestrator\n",
        )
        password.unlink()
        fresh.rename(self.cluster)

    def _run(self, command: list[str | Path], statements: str | None = None) -> None:
        outcome = subprocess.run(
            [self.programs / command[0], *command[1:]],
            cwd=self.place,
            env=self._environment(),
            input=statements or "",
            capture_output=True,
            text=True,
            check=False,
            **self._account().switch(),
        )
        # single-user mode reports a failed statement on stderr only
        if outcome.returncode != 0 or "ERROR:" in outcome.stderr:
            raise ServicesError(f"{command[0]} failed:\n{outcome.stderr.strip()}")

    def _account(self) -> Account:
        return Account.of(self.place.stat().st_uid)

    def _environment(self) -> dict[str, str]:
        return {"HOME": str(self.place), "PATH": f"{self.programs}:/usr/bin:/bin", "LC_ALL": "C"}

    def stop(self, *, at_once: bool = False) -> None:
        pid = self.pid()
        parent = [process for process in self._processes() if process.pid == pid]
        # SIGINT: connections are cut, data is written. SIGQUIT: data is not, but shared memory is still given back.
        send(parent, signal.SIGQUIT if at_once else signal.SIGINT)
        if not wait_until(lambda: not self._processes(), STOP_SECONDS):
            self.kill()

    def kill(self) -> None:
        end(self._processes)

    def wipe(self) -> None:
        self.stop(at_once=True)
        shutil.rmtree(self.cluster, ignore_errors=True)
