"""What thousands of commands on ``tasks`` cost the workflows on ``default``.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.shares

One coordinator and one consumer that reads both queues. A process of five steps on ``default`` – four read from the database,
one is a plain function – is timed again and again, from its start command to its completion event: first on the idle system,
then while ``tasks`` holds thousands of commands of one kind. The ratio of the two is what to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aio_pika

from orchestrator.workflow import TASK_QUEUE
from tests.benchmarks.client import client_of, ready_messages
from tests.benchmarks.copies import copy_waiting
from tests.benchmarks.measure import percentile, resident_memory
from tests.benchmarks.options import count, make_parser, run_benchmark
from tests.benchmarks.systems import Corner, Programs, clear, engine_system, fetch_int, own_corner
from tests.benchmarks.workload import TASKS
from tests.servers import Servers

WARM_UP = 10
TASKS_QUEUE = "orchestrator.steps.tasks"
DONE = "SELECT count(*) FROM process_steps WHERE kind = 'step' AND status = 'success'"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run has shown; times in seconds.

    Args:
        idle, loaded: of each process, from its start command to its completion.
        rate: steps of tasks in a second, meanwhile.
        left: commands on ``tasks`` at the end.
        memory: of the coordinator, in MiB, before the tasks are started and at the end.
    """

    kind: str
    idle: Sequence[float]
    loaded: Sequence[float]
    rate: float
    left: int
    memory: tuple[float, float]

    def __str__(self) -> str:
        p50, p95 = (percentile(self.loaded, one) / percentile(self.idle, one) for one in (0.5, 0.95))
        before, after = self.memory
        return (
            f"{self.kind:14} idle p50 {_ms(self.idle, 0.5)} p95 {_ms(self.idle, 0.95)}, loaded p50 {_ms(self.loaded, 0.5)}"
            f" p95 {_ms(self.loaded, 0.95)} max {_ms(self.loaded, 1)}; ratio p50 {p50:.2f} p95 {p95:.2f};"
            f" tasks {self.rate:.0f}/s, {self.left} left; coordinator {before:.0f} → {after:.0f} MiB"
        )


async def measure(corner: Corner, kind: str, options: argparse.Namespace) -> Figures:
    """Time workflows on the idle system, and again with tasks of one kind."""
    system = engine_system(options.program, workflow="bench_five")
    await clear(corner, system)
    async with Programs(system, corner) as programs, client_of(programs, corner.amqp_url) as client:
        for _ in range(WARM_UP):
            await client.one()
        idle = [await client.one() for _ in range(options.processes)]
    await _fill(corner, kind, options)
    async with Programs(system, corner) as programs, client_of(programs, corner.amqp_url) as client:
        pid = programs.pids["coordinator"]
        before, done, began = resident_memory(pid), await fetch_int(corner.dsn, DONE), time.perf_counter()
        for _ in range(options.settle):
            await client.one()
        loaded = [await client.one() for _ in range(options.processes)]
        took = time.perf_counter() - began
        done = await fetch_int(corner.dsn, DONE) - done - 5 * (options.processes + options.settle)
        figures = Figures(
            kind,
            idle,
            loaded,
            done / took,
            await ready_messages(corner.amqp_url, TASKS_QUEUE),
            (before, resident_memory(pid)),
        )
        await purge(corner, TASKS_QUEUE)
    return figures


async def _fill(corner: Corner, kind: str, options: argparse.Namespace) -> None:
    """Let commands wait on the queue that nothing reads: of one task that is started, and of copies."""
    system = engine_system(options.program, workflow=kind)
    async with (
        Programs(system, corner, consumers=0) as programs,
        client_of(programs, corner.amqp_url) as client,
    ):
        await client.start(1)
        while not await ready_messages(corner.amqp_url, TASKS_QUEUE):
            programs.check()
            await asyncio.sleep(0.1)
    await copy_waiting(corner, kind, TASK_QUEUE, options.commands)


async def purge(corner: Corner, queue: str) -> None:
    """Empty a queue."""
    async with await aio_pika.connect(corner.amqp_url) as connection:
        await (await (await connection.channel()).get_queue(queue, ensure=False)).purge()


def _ms(values: Sequence[float], fraction: float) -> str:
    return f"{percentile(values, fraction) * 1000:.0f} ms"


async def run(servers: Servers, options: argparse.Namespace) -> None:
    """Do what the options say."""
    all_figures: dict[str, list[Figures]] = {}
    async with own_corner(servers, options.queue_type) as corner:
        for _ in range(options.reps):
            for kind in options.kind or TASKS:
                figures = await measure(corner, kind, options)
                all_figures.setdefault(kind, []).append(figures)
                print(figures, flush=True)
    for kind, several in all_figures.items():
        ratios = [percentile(one.loaded, 0.95) / percentile(one.idle, 0.95) for one in several]
        print(f"{kind}: ratio of the p95, median of {len(ratios)}: {statistics.median(ratios):.2f}")


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = make_parser(__doc__)
    found.add_argument("--commands", type=count, default=10_000, help="on the queue tasks (default 10,000)")
    found.add_argument("--processes", type=count, default=60, help="timed one after the other (default 60)")
    found.add_argument("--settle", type=int, default=5, help="not timed, at the beginning of the load (default 5)")
    found.add_argument("--kind", action="append", choices=TASKS, help="of the tasks (default: each in turn)")
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark("shares", parser(), run))
