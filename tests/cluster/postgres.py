"""A PostgreSQL primary with a synchronous standby: every commit that was answered is on both."""

from __future__ import annotations

import secrets
import shutil
import signal

from servers.packages import programs_of

from tests.acceptance.waiting import until
from tests.cluster.machine import HOST, Daemon, Machine, run, user_for, write_private

USER, PASSWORD, DATABASE = "chaos", secrets.token_hex(8), "chaos"


class Server:
    """One PostgreSQL."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.name = name
        self.port = machine.port()
        self._machine = machine
        self._user = user_for("postgres")
        self._place = machine.place(name, self._user)
        self._data = self._place / "data"
        self._daemon: Daemon | None = None

    @property
    def daemon(self) -> Daemon:
        """Its processes."""
        assert self._daemon is not None, "not started"
        return self._daemon

    @property
    def is_up(self) -> bool:
        """Whether its processes have not ended."""
        return self._daemon is not None and self._daemon.runs

    def create(self) -> None:
        """Make an empty cluster of databases."""
        write_private(self._place / "password", PASSWORD, self._user)
        login = [f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={self._place / 'password'}"]
        self._run("initdb", "-D", str(self._data), "--encoding=UTF8", "--locale=C", *login)
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write(f"host replication {USER} {HOST}/32 scram-sha-256\n")

    def copy(self, primary: Server) -> None:
        """Become a standby of a primary, with a copy of its data."""
        shutil.rmtree(self._data, ignore_errors=True)
        source = ["-h", HOST, "-p", str(primary.port), "-U", USER, "-D", str(self._data)]
        self._run("pg_basebackup", *source, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast")
        # What the primary was set to wait for is its own matter.
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write("synchronous_standby_names = ''\n")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "32MB",
            "synchronous_commit": "on",
            "log_line_prefix": "%m [%p] %q%a ",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._daemon = self._machine.daemon(
            self.name,
            [programs_of("postgres") / "postgres", "-D", self._data, *options],
            place=self._place,
            user=self._user,
            variables=self._variables(),
        )
        until(self.answers, f"{self.name} answers", 60, every=0.2)

    def answers(self) -> bool:
        """Return whether it takes connections."""
        assert self.daemon.runs, f"{self.name} has ended:\n{self.daemon.log.read_text(errors='replace')[-3000:]}"
        try:
            self._run("pg_isready", "-q", "-h", HOST, "-p", str(self.port))
        except AssertionError:
            return False
        return True

    def wait_for_standby(self) -> None:
        """Let commits wait for the standby, once there is one."""
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.query("SELECT pg_reload_conf()")
        until(
            lambda: self.query("SELECT sync_state FROM pg_stat_replication") == "sync",
            "the standby is in step",
            60,
            0.2,
        )

    def query(self, statement: str, database: str = "postgres") -> str:
        """Run a statement and return its only value."""
        target = ["-h", HOST, "-p", str(self.port), "-U", USER, "-d", database]
        return self._run("psql", "-X", "-A", "-t", "-q", *target, "-c", statement).strip()

    def promote(self) -> None:
        """Become the primary."""
        self._run("pg_ctl", "promote", "-D", str(self._data), "--wait")

    def kill(self) -> None:
        """End it as a crash does."""
        self.daemon.kill()

    def freeze(self) -> None:
        """Stop it without ending it: its connections stay open, and nothing answers."""
        self.daemon.signal(signal.SIGSTOP)

    def _run(self, program: str, *arguments: str) -> str:
        return run(
            [programs_of("postgres") / program, *arguments],
            place=self._place,
            user=self._user,
            variables=self._variables(),
        )

    def _variables(self) -> dict[str, str]:
        return {
            "HOME": str(self._place),
            "PATH": f"{programs_of('postgres')}:/usr/bin:/bin",
            "LC_ALL": "C",
            "PGPASSWORD": PASSWORD,
        }


class Pair:
    """A primary and its standby, which take turns."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.servers = [Server(machine, "postgres-1"), Server(machine, "postgres-2")]
        self.primary, self.standby = self.servers

    def start(self) -> None:
        """Start both; there is an empty database then."""
        self.primary.create()
        self.primary.start()
        self.primary.query(f"CREATE DATABASE {DATABASE}")
        self.join()

    def join(self) -> None:
        """Make the server that is not the primary a standby of it, and let commits wait for it."""
        if self.standby.is_up:
            self.standby.kill()
        self.standby.copy(self.primary)
        self.standby.start()
        self.primary.wait_for_standby()

    def fail_over(self) -> None:
        """Make the standby take the primary's place, as a program does that watches them."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def url(self, *ports: int) -> str:
        """Return the URL of servers, or of what is before them."""
        return f"postgresql+asyncpg://{USER}:{PASSWORD}@{','.join(f'{HOST}:{port}' for port in ports)}/{DATABASE}"
