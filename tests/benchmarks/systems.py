"""What is measured: the floor and the engine, each as real programs on a database and a virtual host of the benchmark's own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg
import psutil
from sqlalchemy import Connection

from orchestrator.db.migrations import upgrade
from orchestrator.db.registration import register_workflow
from orchestrator.db.session import Database
from tests.benchmarks import floor
from tests.benchmarks.workload import ALL
from tests.servers import Servers, drop_vhost, make_vhost

STOP_WITHIN = 40.0
"""Seconds from SIGTERM to the end of a program: more than its own grace."""


class BenchmarkError(Exception):
    """The run cannot go on, or its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class System:
    """Something that runs ten steps for every start command.

    Args:
        name: in the results.
        coordinator, consumer: the command lines of its programs.
        exchange, key, body: of a start command.
        events: the exchange of its completion events.
        queues: what must have readers before the clock may start, and which program reads it.
        count: SQL for the number of steps that have been done.
        empty: SQL that empties its tables.
    """

    name: str
    coordinator: Sequence[str]
    consumer: Sequence[str]
    exchange: str
    key: str
    body: bytes
    events: str
    queues: Mapping[str, str]
    count: str
    empty: str
    environment: Mapping[str, str] = field(default_factory=dict)
    completed: str = "process.bench.completed"


def floor_system(kind: str, name: str = "floor") -> System:
    """Run the floor; what the kinds are it says itself."""
    program = (sys.executable, floor.__file__)
    return System(
        name=name,
        coordinator=(*program, "coordinator"),
        consumer=(*program, "consumer"),
        exchange="",
        key=floor.STARTS,
        body=b"{}",
        events=floor.EVENTS,
        queues={floor.STARTS: "coordinator", floor.COMMANDS: "consumer", floor.RESULTS: "coordinator"},
        count="SELECT count(*) FROM floor_step",
        empty="TRUNCATE floor_step, floor_process",
        environment={"FLOOR": kind},
    )


def engine_system(program: str, name: str = "engine", workflow: str = "bench", run_ahead: int | None = None) -> System:
    """Run the engine, as the program ``orchestrator`` runs it.

    Args:
        run_ahead: how many steps may run ahead of their commands; default what the engine does by default.
    """
    return System(
        name=name,
        coordinator=(program, "coordinator"),
        consumer=(program, "consumer"),
        exchange="orchestrator.commands",
        key="workflow.start",
        body=f'{{"version": 1, "workflow": "{workflow}", "user": "benchmark"}}'.encode(),
        events="orchestrator.events",
        queues={
            "orchestrator.commands": "coordinator",
            "orchestrator.results": "coordinator",
            "orchestrator.steps.default": "consumer",
        },
        count="SELECT count(*) FROM process_steps WHERE kind = 'step' AND status = 'success'",
        empty="TRUNCATE process_steps, callbacks, processes, consumers CASCADE",
        completed=f"process.{workflow}.completed",
        environment={} if run_ahead is None else {"ORCHESTRATOR_RUN_AHEAD": str(run_ahead)},
    )


@dataclass(frozen=True, slots=True)
class Corner:
    """A database and a virtual host of our own on the given servers."""

    database_url: str
    amqp_url: str
    queue_type: str

    @property
    def dsn(self) -> str:
        """For asyncpg."""
        return self.database_url.replace("+asyncpg", "")

    def environment(self) -> dict[str, str]:
        """Return what the programs need to find it."""
        return {
            "ORCHESTRATOR_DATABASE_URL": self.database_url,
            "ORCHESTRATOR_AMQP_URL": self.amqp_url,
            "ORCHESTRATOR_QUEUE_TYPE": self.queue_type,
            "ORCHESTRATOR_WORKFLOWS": "tests.benchmarks.workload",
            "ORCHESTRATOR_LOG_FORMAT": "json",
        }


@asynccontextmanager
async def own_corner(servers: Servers, queue_type: str) -> AsyncIterator[Corner]:
    """Make a migrated database and a virtual host; remove them at the end."""
    name = f"orchestrator_bench_{os.getpid()}"
    corner = Corner(servers.database_url(name), servers.amqp_url(name), queue_type)
    await execute(servers.dsn(), f'CREATE DATABASE "{name}"')
    try:
        await asyncio.to_thread(make_vhost, servers, name)
        try:
            await _migrate(corner)
            await execute(corner.dsn, floor.TABLES)
            yield corner
        finally:
            await asyncio.to_thread(drop_vhost, servers, name)
    finally:
        await execute(servers.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)')


async def execute(dsn: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_int(dsn: str, query: str) -> int:
    """Ask for one number."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def clear(corner: Corner, system: System) -> None:
    """Leave nothing of the last run: no rows, no dead ones, no checkpoint that falls due in the middle."""
    await execute(corner.dsn, system.empty)
    try:
        await execute(corner.dsn, "CHECKPOINT")
    except asyncpg.InsufficientPrivilegeError:
        print("note: this database user may not CHECKPOINT; one may fall into a run", file=sys.stderr)


class Programs:
    """The programs of a system, running. ``async with`` ends them in an orderly way.

    Args:
        overrides: environment of single programs, by name.
        coordinators: how many of them.
        wrap: put before the command line of every program (a profiler), by name.
    """

    def __init__(
        self,
        system: System,
        corner: Corner,
        consumers: int = 1,
        *,
        coordinators: int = 1,
        overrides: Mapping[str, Mapping[str, str]] | None = None,
        wrap: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.system = system
        self._environment = {**os.environ, **corner.environment(), **system.environment}
        self._commands = {
            role if number == 0 else f"{role} {number + 1}": command
            for role, command, count in (
                ("coordinator", system.coordinator, coordinators),
                ("consumer", system.consumer, consumers),
            )
            for number in range(count)
        }
        self._overrides, self._wrap = overrides or {}, wrap or {}
        self._folder = tempfile.TemporaryDirectory(prefix="orchestrator-bench-")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        for name, command in self._commands.items():
            role = name.split()[0]
            with self._log(name).open("wb") as log:
                self._processes[name] = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time worth waiting for
                    [*self._wrap.get(role, ()), *command],
                    env={**self._environment, **self._overrides.get(role, {})},
                    cwd=self._folder.name,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        return self

    async def __aexit__(self, failure: object, *_: object) -> None:
        try:
            for process in filter(alive, self._processes.values()):
                # Under a profiler the program is its child; the profiler then ends by itself.
                children = psutil.Process(process.pid).children(recursive=True)
                for pid in [child.pid for child in children] or [process.pid]:
                    os.kill(pid, signal.SIGTERM)
            for name, process in self._processes.items():
                try:
                    code = await asyncio.to_thread(process.wait, STOP_WITHIN)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise BenchmarkError(f"the {self.system.name}'s {name} did not end: {self._tail(name)}") from None
                if code not in (0, -15) and failure is None:
                    raise BenchmarkError(f"the {self.system.name}'s {name} ended with {code}: {self._tail(name)}")
        finally:
            self._folder.cleanup()

    @property
    def pids(self) -> dict[str, int]:
        """Name → process id."""
        return {name: process.pid for name, process in self._processes.items()}

    def check(self) -> None:
        """Raise if one of them has ended."""
        for name, process in self._processes.items():
            if not alive(process):
                raise BenchmarkError(
                    f"the {self.system.name}'s {name} has ended ({process.returncode}): {self._tail(name)}"
                )

    def _log(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.log"

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-2000:]


def alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether it still runs."""
    return process.poll() is None


async def _migrate(corner: Corner) -> None:
    database = Database(corner.database_url, pool_size=2, connect_timeout=10, application_name="benchmark")
    try:
        await upgrade(database.engine, Path("there-is-none"))
        async with database.engine.begin() as connection:
            for name in ALL:
                await connection.run_sync(_register, name)
    finally:
        await database.close()


def _register(connection: Connection, name: str) -> None:
    register_workflow(connection, name=name, target="SYSTEM", description="benchmark")
