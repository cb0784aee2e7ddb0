"""What steps that run ahead cost a consumer and PostgreSQL, without a broker and without a coordinator.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.stretches                                   # --help lists the rest
    .venv/bin/python -m tests.benchmarks.stretches --beside ../old/.venv/bin/python  # two versions, in turn

A consumer's runner in a process of its own takes the commands of processes of ten steps that do nothing; its results go nowhere.
Busy: processes that begin at once. Idle: one process after the other. Compare processor time, of the consumer and of its sessions
in PostgreSQL, and the clock only on a quiet machine: it has the wait for the disk in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop

from consumers import program, run_ahead
from consumers.completion import Completion
from consumers.hand_back import HandBack
from consumers.heartbeat import Heartbeat
from consumers.isolation import Isolation
from consumers.metrics import Metrics
from consumers.run_ahead import Budget
from consumers.runner import Runner, make_claims
from consumers.threads import StepThreads
from orchestrator.broker.incoming import Delivery
from orchestrator.broker.outgoing import Outgoing
from orchestrator.broker.topology import step_queue
from orchestrator.db.session import Database
from orchestrator.engine.decision import Entry
from orchestrator.engine.process import Process
from orchestrator.log import configure_logging
from orchestrator.messages import MessageType, StepCommand, encode
from orchestrator.registry import find_abilities
from orchestrator.services.plans import ProgramPlans
from orchestrator.services.start import StartRequest, start
from orchestrator.settings import Limits
from orchestrator.shares import Pace, Shares
from orchestrator.streams import guard_streams
from orchestrator.watchdog import LoopWatch, watch_loop
from tests.benchmarks.systems import BenchmarkError, own_corner
from tests.benchmarks.workload import STEPS
from tests.servers import NoServersError, Servers

LIMITS = Limits(redispatch_after=60, step_timeout=60, state_soft_limit=64_000, state_hard_limit=1_000_000)
LONG = 600.0
"""Seconds for which the consumer may be silent: its heartbeat is recorded once."""

QUEUE = "default"
Figures = dict[str, list[float]]


class Nowhere:
    """Takes what a consumer publishes."""

    async def publish(self, message: Outgoing) -> None:
        """Send nothing."""


class Counted(Metrics):
    """Counts the steps that have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.all_ended = asyncio.Event()

    def expect(self, steps: int) -> None:
        """Begin to count down."""
        self.left = steps
        self.all_ended.clear()

    def count(self, process: Process, entry: Entry, *, blocked: bool) -> None:
        """Count one."""
        super().count(process, entry, blocked=blocked)
        self.left -= 1
        if not self.left:
            self.all_ended.set()


class Consumer:
    """A runner, and the processes for it."""

    def __init__(self, database: Database, runner: Runner, counted: Counted) -> None:
        self._database = database
        self._runner = runner
        self._counted = counted

    @classmethod
    async def make(cls, database: Database, watch: LoopWatch) -> Consumer:
        """Build what the consumer's program builds, and register it."""
        heartbeat = Heartbeat(database, [QUEUE], 1000, find_abilities(), watch, interval=LONG, presumed_dead_after=LONG)
        await heartbeat.register()
        counted, pace, publisher = Counted(), Pace(), Nowhere()
        completion = Completion(database, publisher, counted, pace, redispatch_after=60, max_lost_attempts=5)
        claims = make_claims(database, heartbeat)
        anything: Any = publisher
        runner = Runner(
            database,
            completion,
            heartbeat,
            HandBack(database.pool, anything, heartbeat.consumer_id, stopping=asyncio.Event()),
            claims,
            Isolation(
                database, completion, counted, claims, pool_size=5, places=Shares(9, [QUEUE]), dangerous_for=LONG
            ),
            LIMITS,
            StepThreads(1),
            Shares(1000, [QUEUE]),
            pace,
            Budget(20, LONG),
        )
        return cls(database, runner, counted)

    async def prepare(self, processes: int) -> list[Delivery]:
        """Start processes; return the commands of their first steps."""
        made = []
        for _ in range(processes):
            async with self._database.transaction() as session:
                made.append((await start(session, StartRequest("bench"), LIMITS)).process_id)
        rows = await self._database.pool.fetch(
            "SELECT process_id, step, position, attempt, sequence FROM processes WHERE process_id = ANY($1::uuid[])",
            made,
        )
        return [self._command(**row) for row in rows]

    def _command(self, process_id: UUID, step: str, position: int, attempt: int, sequence: int) -> Delivery:
        command = StepCommand(
            process_id=process_id, workflow="bench", step=step, position=position, attempt=attempt, announced=sequence
        )
        body = encode(command)
        return Delivery(step_queue(QUEUE), body, MessageType.STEP_COMMAND, QUEUE, None, None, None, redelivered=False)

    async def run(self, commands: Sequence[Delivery]) -> None:
        """Take commands that come at once, and wait until all steps have ended."""
        self._counted.expect(len(commands) * STEPS)
        async with asyncio.TaskGroup() as tasks:
            for one in commands:
                tasks.create_task(self._runner.take(one))
        await self._counted.all_ended.wait()
        # The last one is counted after its message has gone out: by then its task may have ended.
        if tasks_left := [one.task for one in self._runner.attempts]:
            await asyncio.wait(tasks_left)


@asynccontextmanager
async def _open(database_url: str) -> AsyncIterator[tuple[Database, Consumer]]:
    database = Database(database_url, pool_size=5, connect_timeout=10, application_name="stretches")
    await database.open()
    try:
        async with database.transaction() as session:
            await ProgramPlans.load().register(session, "benchmark")
        database.share([QUEUE])
        with watch_loop() as watch:
            yield database, await Consumer.make(database, watch)
    finally:
        await database.close()


async def _measure(options: argparse.Namespace) -> Figures:
    """Run in this process; return milliseconds for a step."""
    found: Figures = defaultdict(list)
    # Nobody publishes the commands of those whose stretch ends early because others wait. Older versions have no such limit.
    vars(run_ahead)["MEDIUM"] = Budget(STEPS, LONG)
    async with _open(options.database) as (database, consumer):
        await consumer.run(await consumer.prepare(options.processes))
        gc.collect()
        gc.freeze()  # as the program does
        gc.set_threshold(getattr(program, "MOST_YOUNG", gc.get_threshold()[0]))  # older versions have none
        commands = await consumer.prepare(options.processes)
        sessions = await database.pool.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'stretches' AND datname = current_database()"
        )
        pids = [row["pid"] for row in sessions]
        for name, turns in (("busy", [commands]), ("idle", [[one] for one in await consumer.prepare(options.idle)])):
            before, servers_before = time.process_time(), _read_cpu(pids)
            for turn in turns:
                began = time.perf_counter()
                await consumer.run(turn)
                found[f"{name}: by the clock"].append((time.perf_counter() - began) * 1000 / STEPS / len(turn))
            steps = sum(map(len, turns)) * STEPS
            found[f"{name}: CPU of the consumer"].append((time.process_time() - before) * 1000 / steps)
            found[f"{name}: CPU of PostgreSQL"].append((_read_cpu(pids) - servers_before) * 1000 / steps)
    return found


def _read_cpu(pids: Sequence[int]) -> float:
    """Return the processor time of server processes on this machine, in seconds."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def _run_apart(python: Path, database_url: str, options: argparse.Namespace, log: Path) -> Figures:
    """Measure in a process of the interpreter's own version of the engine."""
    root = python.absolute().parents[2]
    command = [str(python.absolute()), "-P", __file__, "--database", database_url]
    command += ["--processes", str(options.processes), "--idle", str(options.idle)]
    with log.open("ab") as lines:
        done = subprocess.run(
            command, cwd=root, env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=lines, check=False
        )
    if done.returncode:
        raise BenchmarkError(f"{python} ended with {done.returncode}: {log.read_text(errors='replace')[-2000:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


async def _compare(options: argparse.Namespace) -> None:
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        raise BenchmarkError(str(error)) from None
    versions = {"this": Path(sys.executable)} | {f"{number}": one for number, one in enumerate(options.beside, 1)}
    found: dict[str, list[Figures]] = {name: [] for name in versions}
    async with own_corner(servers, "classic") as corner:
        with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
            for _ in range(options.reps):
                for name, python in versions.items():
                    turn = await asyncio.to_thread(
                        _run_apart, python, corner.database_url, options, Path(folder) / name
                    )
                    found[name].append(turn)
    print("| ms a step | " + " | ".join(f"{name}: median (least)" for name in versions) + " |")
    print("| --- |" + " --- |" * len(versions))
    for figure in found["this"][0]:
        cells = []
        for name in versions:
            all_turns = [statistics.median(turn[figure]) for turn in found[name]]
            cells.append(f"{statistics.median(all_turns):.3f} ({min(all_turns):.3f})")
        print(f"| {figure} | " + " | ".join(cells) + " |")


def main() -> int:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--processes", type=int, default=100, help="that begin at once (default 100)")
    found.add_argument("--idle", type=int, default=30, help="processes one after the other (default 30)")
    found.add_argument("--reps", type=int, default=5, help="turns of each version (default 5)")
    found.add_argument("--beside", type=Path, action="append", default=[], help="the interpreter of another version")
    found.add_argument("--database", help=argparse.SUPPRESS)
    options = found.parse_args()
    try:
        if options.database is None:
            uvloop.run(_compare(options))
            return 0
    except BenchmarkError as error:
        print(f"stretches: {error}", file=sys.stderr)
        return 1
    guard_streams()
    configure_logging("json", "info")
    print(json.dumps(uvloop.run(_measure(options))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
