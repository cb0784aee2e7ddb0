"""One installation of the engine: a database, a virtual host, its programs, and a client that drives it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from tests import forking
from tests.acceptance.client import CALLBACKS, Client, Received
from tests.acceptance.programs import Api, Program, program_environment
from tests.acceptance.waiting import PATIENCE, until
from tests.background import Background

FAST = {
    "ORCHESTRATOR_CONNECT_TIMEOUT": "15",  # the servers are there, and may be slow
    "ORCHESTRATOR_HEARTBEAT_INTERVAL": "0.5",
    "ORCHESTRATOR_PRESUMED_DEAD_AFTER": "5",
    "ORCHESTRATOR_REDISPATCH_AFTER": "1",
    "ORCHESTRATOR_RECONCILE_INTERVAL": "0.5",  # each round takes 10 ms of CPU, also of coordinators that nobody uses now
    "ORCHESTRATOR_LOG_LEVEL": "debug",
    "ORCHESTRATOR_SHIPPED_SCHEDULES": "false",  # or a test that runs at twenty past two has processes that it has not started
}
RUN_AHEAD = {"ORCHESTRATOR_RUN_AHEAD": os.environ["TESTS_RUN_AHEAD"]} if "TESTS_RUN_AHEAD" in os.environ else {}
"""By default the tests run with the engine's default; this environment variable is for a run of all of them with another."""
WORKFLOWS = "tests.acceptance.workflows"
MIGRATIONS = Path(__file__).parent / "migrations"
DEFECTS = (
    "attempt not finished",
    "message could not be processed",
    "reconciler round failed",
    "was never awaited",
    "never retrieved",
)
"""What the programs log when something happens that their authors did not think of."""


@dataclass(frozen=True)
class LogEntry:
    """A row of a process's log."""

    sequence: int
    kind: str
    name: str
    position: int | None
    attempt: int
    status: str
    delta: dict[str, Any]
    failure: dict[str, Any] | None
    note: str | None
    author: str
    consumer: str | None
    started_at: Any
    finished_at: Any


class Installation:
    """Everything that one operator runs.

    Args:
        folder: for logs and for what the steps share with the tests.
        database_url: of a database with the engine's migrations.
        amqp_url: of an empty virtual host.
    """

    def __init__(self, folder: Path, database_url: str, amqp_url: str, **settings: str) -> None:
        self.folder = folder
        self.lab = folder / "lab"
        (self.lab / "gates").mkdir(parents=True)
        (folder / "logs").mkdir()
        self.database_url = database_url
        self.amqp_url = amqp_url
        self.environment = program_environment(
            **{
                "ORCHESTRATOR_DATABASE_URL": database_url,
                "ORCHESTRATOR_AMQP_URL": amqp_url,
                "ORCHESTRATOR_WORKFLOWS": WORKFLOWS,
                "ORCHESTRATOR_MIGRATIONS": str(MIGRATIONS),
                "LAB": str(self.lab),
            }
            | FAST
            | RUN_AHEAD
            | settings
        )
        self.installed = False
        """Whether to start the installed program, rather than to fork one."""
        self.errors: int | None = None
        """The descriptor of a file for the standard error of programs; default where their output goes."""
        self.programs: list[Program] = []
        self.background = Background()
        self.client = Client(self.background, amqp_url)
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    # programs

    def run(self, name: str, *arguments: str, **settings: str) -> Program:
        """Start a program; the caller waits until it is ready."""
        log = self.folder / "logs" / f"{len(self.programs):02}-{name}.log"
        kind = Api if name == "api" else Program
        environment = self.environment | settings
        program = kind([*arguments], environment, log, self.folder, installed=self.installed, errors=self.errors)
        self.programs.append(program)
        return program

    def coordinator(self, **settings: str) -> Program:
        """Start a coordinator."""
        return self.run("coordinator", "coordinator", **settings)

    def consumer(self, *arguments: str, **settings: str) -> Program:
        """Start a consumer."""
        return self.run("consumer", "consumer", *arguments, **settings)

    def api(self, *arguments: str, **settings: str) -> Api:
        """Start an API program on a free port, and wait until it serves."""
        program = self.run("api", "api", "--port", "0", *arguments, **settings)
        assert isinstance(program, Api)
        return program.serving()

    def migrate(self) -> None:
        """Bring the database up to date, our workflows' registration included."""
        self.command("db", "upgrade")

    def command(self, *arguments: str, exit_code: int | None = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the command line and wait for its end."""
        outcome = forking.run(
            arguments,
            environment=self.environment | settings,
            folder=self.folder,
            seconds=PATIENCE,
            installed=self.installed,
        )
        if exit_code is not None:
            text = f"orchestrator {' '.join(arguments)} → {outcome.returncode}\n{outcome.stdout}\n{outcome.stderr}"
            assert outcome.returncode == exit_code, text
        return outcome

    def json(self, *arguments: str) -> Any:
        """Run the command line with --json and return what it prints."""
        return json.loads(self.command(*arguments, "--json").stdout)

    def kill_all(self) -> None:
        """End all programs as a crash does."""
        for program in self.programs:
            program.kill()

    def close(self) -> None:
        """End everything."""
        self.kill_all()
        self.client.close()
        if self._connection is not None:
            self.background.run(self._connection.close(timeout=5))
        self.background.close()

    def logs(self) -> str:
        """Return the output of all programs."""
        return "\n".join(f"── {program.name}\n{program.output()}" for program in self.programs)

    def defects(self) -> list[str]:
        """Lines in which a program reports something that must never happen."""
        return [line for line in self.logs().splitlines() if any(defect in line for defect in DEFECTS)]

    def leaks(self) -> list[str]:
        """Lines of the programs' output with a password, or with a callback token that was handed out."""
        secrets = {urlsplit(url).password or "" for url in (self.database_url, self.amqp_url)} - {""}
        secrets |= {token for file in self.lab.glob("tokens-*") for token in file.read_text().split()}
        return [line for line in self.logs().splitlines() if any(secret in line for secret in secrets)]

    # what other services and people do

    def start(self, workflow: str, *inputs: Mapping[str, Any], key: str | None = None, user: str = "tester") -> UUID:
        """Start a process with a message and return its id."""
        answer = self.client.ask(
            "workflow.start", {"workflow": workflow, "inputs": list(inputs), "user": user}, message_id=key
        )
        assert answer.type == "workflow.started", answer.body
        return UUID(answer.body["process_id"])

    def resume(self, process_id: UUID, *inputs: Mapping[str, Any], user: str = "operator") -> Received:
        """Give a process its input, or retry it."""
        return self.client.ask("process.resume", {"process_id": str(process_id), "inputs": list(inputs), "user": user})

    def retry(self, process_id: UUID, user: str = "operator") -> None:
        """Retry a process by hand."""
        answer = self.resume(process_id, user=user)
        assert answer.type == "process.resumed", answer.body

    def abort(self, process_id: UUID, user: str = "operator", reason: str | None = None) -> Received:
        """End a process."""
        return self.client.ask("process.abort", {"process_id": str(process_id), "user": user, "reason": reason})

    def answer(self, token: str, body: object, kind: str = "completed") -> None:
        """Answer for the external system."""
        self.client.send(CALLBACKS, f"callback.{kind}", body, correlation_id=token)

    def open_gate(self, name: object) -> None:
        """Let steps that wait for this gate go on."""
        (self.lab / "gates" / str(name)).touch()

    def close_gate(self, name: object) -> None:
        """Let steps wait again."""
        (self.lab / "gates" / str(name)).unlink(missing_ok=True)

    def journal(self, process_id: object = None, what: str | None = None) -> list[dict[str, Any]]:
        """Return what the steps did, committed or not: one line each, in order."""
        path = self.lab / "journal"
        *lines, _ = (
            path.read_text().split("\n") if path.exists() else [""]
        )  # what follows the last end of a line is half a line
        found = [json.loads(line) for line in lines]
        return [
            one
            for one in found
            if (process_id is None or one["process_id"] == str(process_id)) and (what is None or one["what"] == what)
        ]

    def token(self, process_id: UUID, number: int = 1) -> str:
        """Return the callback token that the action of a process gave to the external system for the n-th time."""
        path = self.lab / f"tokens-{process_id}"

        def given() -> str:
            *tokens, _ = path.read_text().split("\n") if path.exists() else [""]  # as in the journal
            return tokens[number - 1] if len(tokens) >= number else ""

        return until(given, f"the action of {process_id} hands out its token for the {number}. time")

    # what can be read in the database

    def query(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Read, and only read, the database."""
        return self.background.run(self._query(statement, *arguments))

    def value(self, statement: str, *arguments: object) -> Any:
        """One value from the database."""
        return self.query(statement, *arguments)[0][0]

    def write(self, statement: str, *arguments: object) -> None:
        """Change the database by hand, as no program does."""

        async def execute() -> None:
            connection = await self._connect()
            try:
                await connection.execute(statement, *arguments)
            finally:
                await connection.close()

        self.background.run(execute())

    def status(self, process_id: UUID) -> str:
        """Return the status of a process."""
        return str(self.value("SELECT status FROM processes WHERE process_id = $1", process_id))

    def state(self, process_id: UUID) -> dict[str, Any]:
        """Return the state of a process."""
        found: dict[str, Any] = self.value("SELECT state FROM processes WHERE process_id = $1", process_id)
        return found

    def log(self, process_id: UUID, name: str | None = None, kind: str | None = None) -> list[LogEntry]:
        """Return the log of a process, or the entries of one step."""
        rows = self.query(
            """SELECT sequence, kind, name, position, attempt, status, delta, failure, note, author, consumer, started_at,
                      finished_at FROM process_steps WHERE process_id = $1 ORDER BY sequence""",
            process_id,
        )
        found = [LogEntry(*row.values()) for row in rows]
        return [row for row in found if name in (None, row.name) and kind in (None, row.kind)]

    def effects(self, process_id: UUID) -> list[str]:
        """Return what the steps of a process have written into a table of their own, in order."""
        rows = self.query("SELECT step FROM effects WHERE process_id = $1 ORDER BY effect_id", process_id)
        return [row["step"] for row in rows]

    def wait_for(self, process_id: UUID, status: str, seconds: float = PATIENCE) -> None:
        """Wait until a process has a status; fail at once when it ends in another."""
        final = {"completed", "aborted", "failed", "inconsistent_data"} - {status}

        def reached() -> bool:
            now = self.status(process_id)
            if now in final:
                entries = [(e.name, e.status, (e.failure or {}).get("message")) for e in self.log(process_id)]
                raise AssertionError(f"{process_id} is {now} instead of {status}: {entries}")
            return now == status

        until(reached, f"process {process_id} is {status}", seconds)

    def wait_for_note(self, process_id: object, what: str, number: int = 1) -> None:
        """Wait until a step has written something into the journal."""
        until(lambda: len(self.journal(process_id, what)) >= number, f"{what!r} of {process_id} ×{number}")

    @contextlib.contextmanager
    def holding(self, statement: str, *arguments: object) -> Iterator[int]:
        """Hold the locks that a statement takes, then commit; yield the number by which the server knows who holds them."""
        connection = self.background.run(self._connect())
        try:
            self.background.run(connection.execute("BEGIN"))
            assert self.background.run(connection.fetch(statement, *arguments)), f"nothing to hold: {statement}"
            yield connection.get_server_pid()
            self.background.run(connection.execute("COMMIT"))
        finally:
            self.background.run(connection.close(timeout=5))

    def waits_for(self, holder: int) -> bool:
        """Whether somebody waits for a lock of this connection."""
        return bool(
            self.value("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid)))", holder)
        )

    def finish(self, workflow: str, *inputs: Mapping[str, Any], status: str = "completed") -> UUID:
        """Start a process and wait until it has ended."""
        process_id = self.start(workflow, *inputs)
        self.wait_for(process_id, status)
        return process_id

    def disconnect(self) -> None:
        """Give up the connection by which the database is read, without a word to a server that may be gone."""
        connection, self._connection = self._connection, None

        async def terminate() -> None:
            if connection is not None:
                connection.terminate()

        self.background.run(terminate())

    async def _query(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect(default_transaction_read_only="on")
            await self._connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        return await self._connection.fetch(statement, *arguments)

    async def _connect(self, **settings: str) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            self.database_url.replace("+asyncpg", ""),
            timeout=60,
            server_settings={"application_name": "acceptance", **settings},
        )
