"""A private PostgreSQL from installed programs."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from .errors import ServicesError, say
from .folder import write_private
from .processes import own, start, switch
from .server import Private


class Postgres(Private):
    name = "postgres"
    ports = ("postgres",)
    # SIGINT: connections are cut, data is written. SIGQUIT: data is not, but shared memory is still given back.
    ending = (signal.SIGINT, signal.SIGQUIT)

    @property
    def port(self) -> int:
        return self.record.ports["postgres"]

    def environment(self) -> dict[str, str]:
        login = f"orchestrator:{self.record.password}@127.0.0.1:{self.port}"
        return {"ORCHESTRATOR_DATABASE_URL": f"postgresql+asyncpg://{login}/orchestrator"}

    def describe(self) -> str:
        return f"port {self.port}"

    def answers(self) -> bool:
        """Return whether it asks our user for a password ('R'), and does not say that it is starting up ('E')."""
        body = b"\0\x03\0\0user\0orchestrator\0database\0orchestrator\0\0"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall((len(body) + 4).to_bytes(4, "big") + body)
                return connection.recv(1) == b"R"
        except OSError:
            return False

    # The postmaster keeps the command line that it was started with. Its children replace theirs by a title, which
    # has the cluster_name in it.
    def main_process(self) -> str:
        return rf"^(\S*/)?postgres -D .*{self.folder.marker}\b"

    def every_process(self) -> str:
        return rf"^(\S*/)?postgres\b.*{self.folder.marker}\b"

    def launch(self) -> subprocess.Popen[bytes]:
        if not self.data.exists():
            say("postgres: making a database cluster …")
            self._make_cluster()
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # after a crash its pid may be another program's
        settings = {
            "cluster_name": self.folder.marker,
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_line_prefix": "%m [%p] %q%a ",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return start(
            [self.programs / "postgres", "-D", self.data, *options],
            user=self.user,
            folder=self.place,
            environment=self._variables(),
            log=self.folder.log(self.name),
        )

    def _make_cluster(self) -> None:
        """Make a cluster with our role and database, and put it in place when it is complete."""
        fresh = self.place / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        password = self.place / "password"
        write_private(password, self.record.password + "\n")
        own(password, self.user)
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
        fresh.rename(self.data)

    def _run(self, command: list[str | Path], statements: str = "") -> None:
        outcome = subprocess.run(
            [self.programs / command[0], *command[1:]],
            cwd=self.place,
            env=self._variables(),
            input=statements,
            capture_output=True,
            text=True,
            check=False,
            **switch(self.user),
        )
        # Single-user mode reports a failed statement on stderr only.
        if outcome.returncode != 0 or "ERROR:" in outcome.stderr:
            raise ServicesError(f"{command[0]} failed:\n{outcome.stderr.strip()}")

    def _variables(self) -> dict[str, str]:
        return {"HOME": str(self.place), "PATH": f"{self.programs}:/usr/bin:/bin", "LC_ALL": "C"}
