"""A private PostgreSQL from installed programs."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from . import ServicesError, say
from .server import Private
from .system import as_user, write_private


class Postgres(Private):
    name = "postgres"
    ports = ("postgres",)
    # SIGINT: connections are cut, data is written. SIGQUIT: data is not, but shared memory is still given back.
    ending = (signal.SIGINT, signal.SIGQUIT)
    # The postmaster keeps the command line that it was started with. Its children replace theirs by a title, which
    # has the cluster_name in it.
    main_process = r"^(\S*/)?postgres -D .*"
    every_process = r"^(\S*/)?postgres\b.*"

    syncs = True
    """Whether one that is started waits until the disk has what was committed."""

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.folder.password}@127.0.0.1:{self.folder.ports['postgres']}"
        return {"ORCHESTRATOR_DATABASE_URL": f"postgresql+asyncpg://{login}/orchestrator"}

    def variables(self) -> dict[str, str]:
        return {"HOME": str(self.place), "PATH": f"{self.programs}:/usr/bin:/bin", "LC_ALL": "C"}

    def answers(self) -> bool:
        target = ["-h", "127.0.0.1", "-p", str(self.folder.ports["postgres"]), "-U", "orchestrator"]
        command: list[str | Path] = [self.programs / "pg_isready", "-q", *target]
        return subprocess.run(command, env=self.variables(), check=False).returncode == 0

    def launch(self) -> subprocess.Popen[bytes]:
        if not self.data.exists():
            say("postgres: making a database cluster …")
            self._make_cluster()
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # after a crash its pid may be another program's
        settings = {
            "cluster_name": self.folder.marker,
            "port": str(self.folder.ports["postgres"]),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            # The tests run dozens of programs at once, each with two pools and a few connections beside them.
            "max_connections": "500",
            "log_line_prefix": "%m [%p] %q%a ",
            "fsync": "on" if self.syncs else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self.spawn([self.programs / "postgres", "-D", self.data, *options])

    def _make_cluster(self) -> None:
        """Make a cluster with our role and database, and put it in place when it is complete."""
        fresh = self.place / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._run("initdb", "-D", str(fresh), "--username=postgres", "--encoding=UTF8", "--locale=C", "--auth=reject")
        write_private(fresh / "pg_hba.conf", "host all orchestrator 127.0.0.1/32 scram-sha-256\n", self.user)
        # Single-user mode needs no connection, so there is never a moment without a password.
        statements = (
            f"CREATE ROLE orchestrator LOGIN CREATEDB PASSWORD '{self.folder.password}'\n"
            "CREATE DATABASE orchestrator OWNER orchestrator\n"
        )
        self._run("postgres", "--single", "-D", str(fresh), "postgres", statements=statements)
        fresh.rename(self.data)

    def _run(self, program: str, *arguments: str, statements: str = "") -> None:
        outcome = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.place,
            env=self.variables(),
            input=statements,
            capture_output=True,
            text=True,
            check=False,
            **as_user(self.user),
        )
        # Single-user mode reports a failed statement on stderr only.
        if outcome.returncode != 0 or "ERROR:" in outcome.stderr:
            raise ServicesError(f"{program} failed:\n{outcome.stderr.strip()}")
