"""How long waiting processes take after the broker has lost its data, against the same without the loss.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.recovery

One coordinator. Processes of one step that does nothing, copies of one that was started, wait for a consumer. Then, in turn,
nothing happens, or the virtual host is deleted and made again, empty. At that moment a consumer is started; the clock runs until
the last process is completed. The ratio of the two is what to look at.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.workflow import DEFAULT_QUEUE
from tests.benchmarks.client import client_of, ready_messages
from tests.benchmarks.copies import copy_waiting
from tests.benchmarks.measure import peak_memory
from tests.benchmarks.options import count, make_parser, run_benchmark
from tests.benchmarks.systems import BenchmarkError, Corner, Programs, clear, engine_system, fetch_int, own_corner
from tests.servers import Servers, drop_vhost, make_vhost

STEPS_QUEUE = "orchestrator.steps.default"
STALLED_AFTER = 300.0
"""Seconds without any change after which a run has failed."""

COMPLETED = "SELECT count(*) FROM processes WHERE status = 'completed'"
PUBLISHED_AGAIN = "SELECT count(*) FROM processes WHERE published_at IS NOT NULL"
STEPS = "SELECT count(*) FROM process_steps WHERE kind = 'step' AND name = 'nothing'"
SETTLED = "SELECT count(*) FROM processes WHERE due_at > updated_at + interval '7 seconds' AND announced = sequence"
"""The coordinator has found that the command waits: it looks for the first time six seconds after a start, at the latest."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run has shown.

    Args:
        seconds: from the start of the consumer until all processes are completed.
        again: processes whose command was published again and not claimed until that was recorded.
        memory: the peak of each program, in MiB.
    """

    is_wiped: bool
    seconds: float
    again: int
    memory: Mapping[str, float]

    def __str__(self) -> str:
        kind = "after the loss of the broker's data" if self.is_wiped else "without a loss"
        return f"{kind:36} {self.seconds:6.1f} s; {self.again} commands were published again and not yet claimed then"


async def measure(servers: Servers, corner: Corner, options: argparse.Namespace, *, is_wiped: bool) -> Figures:
    """Let processes wait, take away their commands or not, and let a consumer run them."""
    system = engine_system(options.program, workflow="bench_noop")
    await clear(corner, system)
    async with Programs(system, corner, consumers=0) as coordinator:
        async with client_of(coordinator, corner.amqp_url) as client:
            await client.start(1)
            await _reach(corner, SETTLED, 1)
        await copy_waiting(corner, "bench_noop", DEFAULT_QUEUE, options.processes)
        while await ready_messages(corner.amqp_url, STEPS_QUEUE) < options.processes:
            coordinator.check()
            await asyncio.sleep(0.5)
        began = time.perf_counter()
        if is_wiped:
            vhost = corner.amqp_url.rsplit("/", 1)[1]
            await asyncio.to_thread(drop_vhost, servers, vhost)
            await asyncio.to_thread(make_vhost, servers, vhost)
        async with Programs(system, corner, coordinators=0) as consumer:
            await _reach(corner, COMPLETED, options.processes)
            took = time.perf_counter() - began
            memory = {name: peak_memory(pid) for name, pid in {**coordinator.pids, **consumer.pids}.items()}
        if await fetch_int(corner.dsn, STEPS) != options.processes:
            raise BenchmarkError("steps were run twice, or not at all")
        return Figures(is_wiped, took, await fetch_int(corner.dsn, PUBLISHED_AGAIN), memory)


async def _reach(corner: Corner, query: str, wanted: int) -> None:
    """Wait until a query returns a number; fail when it has not changed for a while."""
    found, changed = -1, time.perf_counter()
    while found < wanted:
        before, found = found, await fetch_int(corner.dsn, query)
        if found != before:
            changed = time.perf_counter()
        elif time.perf_counter() - changed > STALLED_AFTER:
            raise BenchmarkError(f"{found} of {wanted}, and no change for {STALLED_AFTER:g} s: {query}")
        await asyncio.sleep(0.2)


async def run(servers: Servers, options: argparse.Namespace) -> None:
    """Do what the options say."""
    ratios = []
    async with own_corner(servers, options.queue_type) as corner:
        for _ in range(options.reps):
            pair = []
            for is_wiped in (False, True):
                pair.append(await measure(servers, corner, options, is_wiped=is_wiped))
                print(pair[-1], flush=True)
            ratios.append(pair[1].seconds / pair[0].seconds)
    print(f"ratio, median of {len(ratios)}: {statistics.median(ratios):.2f}")


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = make_parser(__doc__)
    found.add_argument("--processes", type=count, default=10_000, help="that wait (default 10,000)")
    return found


if __name__ == "__main__":
    sys.exit(run_benchmark("recovery", parser(), run))
