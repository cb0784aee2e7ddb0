"""What a deadly step, or kill -9, costs the steps beside it and new work.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.suspects

One coordinator, one consumer that is started again whenever it dies. For each N: N healthy steps that rest; the same with a step
that ends the process that runs it, one second after its start; the same with four kill -9 of the consumer instead. Meanwhile a
process of one step that does nothing is started again and again while the consumer lives: how long does new work wait? "Idle" is
the median of the same without a death, once all N steps rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
import asyncpg
import psutil

from tests.benchmarks.client import client_of
from tests.benchmarks.measure import percentile
from tests.benchmarks.systems import BenchmarkError, Programs, engine_system, own_corner
from tests.benchmarks.workload import REST_VARIABLE
from tests.servers import NoServersError, Servers

STEPS_QUEUE = "orchestrator.steps.default"
STALLED_AFTER = 300.0
"""Seconds without any change after which a run has failed."""

KILLS, KILL_EVERY = 4, 12.0
"""How often the consumer is killed, and how many seconds apart: within a minute."""

ORCHESTRATOR = str(Path(sys.executable).parent / "orchestrator")


@dataclass
class Figures:
    """What one run has shown.

    Args:
        seconds: from the first start command until all healthy steps are completed.
        beginning: seconds of each process of a step that does nothing, from its start command to its completion, that was
            started before all healthy steps had begun.
        noops: the same of those that were started later.
        failed: healthy processes that have failed.
        ready: messages in the step queue, at most.
        children: child processes at once, at most.
    """

    seconds: float = 0.0
    beginning: list[float] = field(default_factory=list)
    noops: list[float] = field(default_factory=list)
    failed: int = 0
    ready: int = 0
    children: int = 0


class Consumer:
    """A consumer that is started again whenever it ends, as a supervisor does."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

    async def run(self) -> None:
        """Start it again and again until this is cancelled; then end it."""
        try:
            while True:
                self._process = await asyncio.create_subprocess_exec(
                    ORCHESTRATOR, "consumer", env=self._environment, stderr=asyncio.subprocess.DEVNULL
                )
                self.starts += 1
                await self._process.wait()
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(signal.SIGTERM)
                await self._process.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def count_children(self) -> int:
        """Return how many child processes it has."""
        if self._process is None:
            return 0
        with contextlib.suppress(psutil.Error):
            # One of them is forked, and runs no step itself.
            return max(0, len(psutil.Process(self._process.pid).children(recursive=True)) - 1)
        return 0


class Run:
    """One run on a corner of its own."""

    def __init__(
        self,
        connection: aio_pika.abc.AbstractConnection,
        channel: aio_pika.abc.AbstractChannel,
        database: asyncpg.Pool,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._database = database
        self.figures = Figures()
        self.have_begun = False

    async def start(self, workflow: str) -> None:
        """Start a process."""
        exchange = await self._channel.get_exchange("orchestrator.commands", ensure=False)
        body = f'{{"version": 1, "workflow": "{workflow}", "user": "benchmark"}}'.encode()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, type="workflow.start")
        await exchange.publish(message, routing_key="workflow.start")

    async def count(self, workflow: str, status: str) -> int:
        """Return how many processes of a workflow have a status."""
        return int(
            await self._database.fetchval(
                "SELECT count(*) FROM processes WHERE workflow = $1 AND status = $2", workflow, status
            )
        )

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition as long as something changes: a busy machine may be slow."""
        seen, since = await self.statuses(), time.monotonic()
        while not await condition():
            statuses = await self.statuses()
            if statuses != seen:
                seen, since = statuses, time.monotonic()
            if time.monotonic() > since + STALLED_AFTER:
                raise BenchmarkError(f"not done, and no change for {STALLED_AFTER:g} s: {statuses}")
            await asyncio.sleep(0.1)

    async def statuses(self) -> list[tuple[str, str, int, int]]:
        """Return how many processes are in which status, and how often their steps were begun."""
        rows = await self._database.fetch(
            "SELECT workflow, status, count(*), sum(attempt) FROM processes"
            " WHERE workflow <> 'bench_noop' GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def watch(self, consumer: Consumer) -> None:
        """Note the largest numbers of messages and of child processes."""
        while True:
            queue = await self._channel.declare_queue(STEPS_QUEUE, passive=True)
            self.figures.ready = max(self.figures.ready, queue.declaration_result.message_count or 0)
            self.figures.children = max(self.figures.children, consumer.count_children())
            await asyncio.sleep(0.2)

    async def probe(self, consumer: Consumer, one: Callable[[], Awaitable[float]]) -> None:
        """Start new work again and again. What has waited for a consumer to start says nothing, and is left out."""
        channel = await self._connection.channel()
        while True:
            before = consumer.starts
            kept = self.figures.noops if self.have_begun else self.figures.beginning
            queue = await channel.declare_queue(STEPS_QUEUE, passive=True)
            took = await one()
            if queue.declaration_result.consumer_count and consumer.starts == before:
                kept.append(took)
            await asyncio.sleep(0.25)


@asynccontextmanager
async def beside(*tasks: Awaitable[None]) -> AsyncIterator[None]:
    """Run these beside the body, and cancel them after it."""
    running = [asyncio.ensure_future(one) for one in tasks]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        for result in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def measure(servers: Servers, options: argparse.Namespace, steps: int, scenario: str) -> Figures:
    """Run one scenario: ``quiet``, ``deadly`` or ``killed``."""
    async with own_corner(servers, "classic") as corner:
        environment = {
            "ORCHESTRATOR_PRESUMED_DEAD_AFTER": str(options.presumed_dead_after),
            "ORCHESTRATOR_HEARTBEAT_INTERVAL": str(options.presumed_dead_after / 5),
            "ORCHESTRATOR_MAX_LOST_ATTEMPTS": str(options.max_lost_attempts),
            REST_VARIABLE: str(options.rest),
        }
        programs = Programs(
            engine_system(ORCHESTRATOR, workflow="bench_noop"),
            corner,
            consumers=0,
            overrides={"coordinator": environment},
        )
        consumer = Consumer({**os.environ, **corner.environment(), **environment})
        database = await asyncpg.create_pool(corner.dsn, min_size=1, max_size=2)
        connection = await aio_pika.connect(corner.amqp_url)
        async with (
            programs,
            database,
            connection,
            beside(consumer.run()),
            client_of(programs, corner.amqp_url) as client,
        ):
            run = Run(connection, await connection.channel(), database)
            await client.one()  # once the consumer reads its queue
            began = time.perf_counter()
            async with beside(run.watch(consumer), run.probe(consumer, client.one)):
                await asyncio.gather(*(run.start("bench_resting") for _ in range(steps)))
                await run.until(lambda: _all_claimed(database, steps))
                run.have_begun = True
                if scenario == "deadly":
                    await run.start("bench_deadly")
                for _ in range(KILLS if scenario == "killed" else 0):
                    consumer.kill()
                    await asyncio.sleep(options.kill_every)
                await run.until(lambda: _all_ended(run, steps))
                run.figures.seconds = time.perf_counter() - began
                # Few and short steps may be over before any new work is.
                await run.until(lambda: _has_new_work(run))
                if scenario == "deadly":
                    await run.until(lambda: _is_failed(run))
            run.figures.failed = await run.count("bench_resting", "failed")
            return run.figures


async def _all_claimed(database: asyncpg.Pool, steps: int) -> bool:
    query = "SELECT count(*) FROM processes WHERE workflow = 'bench_resting' AND (claimed_by IS NOT NULL OR status <> 'running')"
    return int(await database.fetchval(query)) == steps


async def _all_ended(run: Run, steps: int) -> bool:
    return await run.count("bench_resting", "completed") + await run.count("bench_resting", "failed") == steps


async def _has_new_work(run: Run) -> bool:
    return bool(run.figures.noops)


async def _is_failed(run: Run) -> bool:
    return await run.count("bench_deadly", "failed") == 1


def show(steps: int, scenario: str, figures: Figures, quiet: Figures) -> str:
    """Return the figures as a row of a table."""
    idle, noops = statistics.median(quiet.noops), figures.noops
    return (
        f"| {steps} | {scenario} | {figures.seconds:.1f} s | {figures.seconds / quiet.seconds:.2f} | {figures.failed} |"
        f" {max(figures.beginning, default=0) / idle:.1f} |"
        f" {statistics.median(noops) / idle:.2f}, {percentile(noops, 0.95) / idle:.2f}, {max(noops) / idle:.2f} |"
        f" {figures.ready} | {figures.children} |"
    )


async def run_all(options: argparse.Namespace) -> None:
    """Run all scenarios for each number of steps."""
    servers = Servers.from_environment()
    print(
        "| steps | scenario | until all are completed | ÷ quiet | failed | no-op ÷ idle: max while all begin |"
        " p50, p95, max later | messages | children |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for steps in options.steps:
        quiet = await measure(servers, options, steps, "quiet")
        for scenario in ("quiet", *options.scenarios):
            figures = quiet if scenario == "quiet" else await measure(servers, options, steps, scenario)
            print(show(steps, scenario, figures, quiet), flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument(
        "--steps", type=int, nargs="+", default=[60, 150, 400], help="healthy steps (default 60 150 400)"
    )
    found.add_argument(
        "--scenarios", nargs="+", choices=("deadly", "killed"), default=["deadly", "killed"], help="default: both"
    )
    found.add_argument("--rest", type=float, default=14.0, help="seconds that each of them takes (default 14)")
    found.add_argument(
        "--presumed-dead-after", type=float, default=10.0, help="seconds of silence (default 10, as in the engine)"
    )
    found.add_argument("--max-lost-attempts", type=int, default=3, help="as in the engine (default 3)")
    found.add_argument(
        "--kill-every", type=float, default=KILL_EVERY, help=f"seconds between two kill -9 (default {KILL_EVERY:g})"
    )
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run_all(parser().parse_args())))
    except (NoServersError, BenchmarkError) as error:
        sys.exit(f"suspects: {error}")
