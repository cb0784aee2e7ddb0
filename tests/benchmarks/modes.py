"""The measurements."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.client import Client, client_of
from tests.benchmarks.measure import Meter, resident_memory, slope, wait_until_quiet
from tests.benchmarks.peers import peer_turn
from tests.benchmarks.profiles import print_top, profiled, sampler
from tests.benchmarks.report import Turn
from tests.benchmarks.statements import CountingProxy
from tests.benchmarks.systems import (
    BenchmarkError,
    Corner,
    Programs,
    System,
    clear,
    engine_system,
    execute,
    fetch_int,
)
from tests.benchmarks.workload import NAP, STEPS

WARM_UP = 30
"""Processes run before the clock starts: connections, prepared statements, caches."""

IDLE_PROCESSES, IDLE_WARM_UP = 50, 5
"""Processes that run one at a time while what they cost is counted, and before."""

SLEEPERS, SLEEPERS_WITHIN = 1000, 15.0

SHORT_ONES = 100
"""Short processes that are started beside a long one."""

_P95 = """
SELECT 1000 * percentile_cont(0.95) WITHIN GROUP (ORDER BY EXTRACT(EPOCH FROM updated_at - started_at))
  FROM processes WHERE workflow = 'bench_short'
"""

WAVE = 500
"""Processes under way at once while the memory is watched."""

_SYNCS_NEW = "SELECT COALESCE(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"
_SYNCS_OLD = "SELECT wal_sync FROM pg_stat_wal"


async def compare(
    corner: Corner, systems: Sequence[System], options: argparse.Namespace, peers: Sequence[str] = ()
) -> list[Turn]:
    """Each system in turn, again and again."""
    turns = []
    all_of_them: list[System | str] = [*systems, *peers]
    for repetition in range(options.reps):
        for system in all_of_them:
            if not options.no_wait:
                await asyncio.to_thread(wait_until_quiet)
            if isinstance(system, str):
                turn = await peer_turn(corner, system, options)
            else:
                turn = await _turn(corner, system, options)
            turns.append(turn)
            print(f"{repetition + 1}/{options.reps} {turn}", file=sys.stderr, flush=True)
    return turns


async def _turn(corner: Corner, system: System, options: argparse.Namespace) -> Turn:
    await clear(corner, system)
    async with Programs(system, corner, options.consumers) as programs, client_of(programs, corner.amqp_url) as client:
        await client.many(WARM_UP)
        before = await fetch_int(corner.dsn, system.count)
        meter = Meter(programs.pids)
        seconds = await client.many(options.processes)
        meter.stop()
        done = await fetch_int(corner.dsn, system.count) - before
        if done != options.processes * STEPS:
            raise BenchmarkError(f"{system.name}: {done} steps are in the log instead of {options.processes * STEPS}")
        await asyncio.sleep(0.5)
        idle = [await client.one() for _ in range(options.idle)]
        return Turn(system.name, options.processes, done, seconds, idle, meter.cpu, meter.memory, meter.others)


async def sleeping(corner: Corner, program: str) -> int:
    """Run a thousand steps that sleep, on one consumer with ten database connections."""
    system = engine_system(program, workflow="bench_sleeping")
    pool = {"ORCHESTRATOR_DATABASE_POOL_SIZE": "10"}
    overrides = {"consumer": pool, "coordinator": pool}
    async with (
        Programs(system, corner, overrides=overrides) as programs,
        client_of(programs, corner.amqp_url) as client,
    ):
        seconds = await client.many(SLEEPERS)
    good = seconds <= SLEEPERS_WITHIN
    print(
        f"{SLEEPERS} processes of one step that sleeps {NAP:g} s, one consumer, 10 database connections:"
        f" {seconds:.1f} s ({'within' if good else 'NOT within'} {SLEEPERS_WITHIN:g} s)"
    )
    return 0 if good else 1


async def fairness(corner: Corner, program: str, options: argparse.Namespace) -> int:
    """Time a hundred short processes that are started while a long one runs, with each budget in turn."""
    times: dict[int, list[float]] = {}
    for _ in range(options.reps):
        for steps in options.run_ahead or [0, 20]:
            short = engine_system(program, f"ahead {steps}", "bench_short", steps)
            await clear(corner, short)
            async with Programs(short, corner) as programs, client_of(programs, corner.amqp_url) as client:
                await client.many(WARM_UP)
                await execute(corner.dsn, short.empty.replace(", consumers CASCADE", " CASCADE"))
                await client.start(1, replace(short, body=engine_system(program, workflow="bench_long").body))
                await client.many(SHORT_ONES)
                p95 = await fetch_int(corner.dsn, _P95)
            times.setdefault(steps, []).append(p95)
            print(f"run-ahead {steps}: p95 of {SHORT_ONES} short processes {p95} ms", file=sys.stderr, flush=True)
    first = statistics.median(next(iter(times.values())))
    for steps, found in times.items():
        print(
            f"run-ahead {steps}: median of the p95 {statistics.median(found):.0f} ms, {statistics.median(found) / first:.2f}"
        )
    return 0


async def count_statements(corner: Corner, systems: Sequence[System], processes: int) -> int:
    """Count what a step costs while one process runs at a time, and while many do.

    SQL is counted on the wire, by program, and disk syncs in the whole server: have it for yourself.
    """
    print(f"{'per step':36} {'statements':>11} {'parsed':>8} {'round trips':>12} {'disk syncs':>11}")
    for system in systems:
        for is_idle in (True, False):
            await clear(corner, system)
            many = IDLE_PROCESSES if is_idle else processes
            counts, syncs = await _count(corner, system, many, is_idle=is_idle)
            steps = many * STEPS
            both = counts["coordinator"] + counts["consumer"]
            for name, count in [*counts.items(), ("both", both)]:
                title = f"{system.name} {'idle' if is_idle else 'saturated'} {name}"
                found = [count[key] / steps for key in ("executions", "preparations", "round trips")]
                print(
                    f"{title:36} {found[0]:11.2f} {found[1]:8.2f} {found[2]:12.2f}"
                    f" {f'{syncs:.2f}' if name == 'both' else '':>11}"
                )
    print(
        "(a process's start and end are spread over its steps; the engine's background work during the run is counted in)"
    )
    return 0


async def _count(
    corner: Corner, system: System, processes: int, *, is_idle: bool
) -> tuple[dict[str, Counter[str]], float]:
    """Return for a step what each program has sent, and the disk syncs."""
    query = _SYNCS_NEW if await fetch_int(corner.dsn, "SHOW server_version_num") >= 180_000 else _SYNCS_OLD
    # Backends report what they did now and then, and when they end; so ask with all of them gone, before and after.
    await asyncio.sleep(1)
    before = await fetch_int(corner.dsn, query)
    async with AsyncExitStack() as stack:
        proxies = {
            name: await stack.enter_async_context(CountingProxy(corner.database_url))
            for name in ("coordinator", "consumer")
        }
        overrides = {name: {"ORCHESTRATOR_DATABASE_URL": proxy.url} for name, proxy in proxies.items()}
        programs = await stack.enter_async_context(Programs(system, corner, overrides=overrides))
        client = await stack.enter_async_context(client_of(programs, corner.amqp_url))

        async def run(count: int) -> None:
            if is_idle:
                for _ in range(count):
                    await client.one()
            else:
                await client.many(count)

        await run(IDLE_WARM_UP if is_idle else WARM_UP)
        for proxy in proxies.values():
            proxy.counts.clear()
        await run(processes)
        await asyncio.sleep(1)  # what is written behind, once a process has ended
        counts = {name: proxy.counts.copy() for name, proxy in proxies.items()}
    await asyncio.sleep(1)
    syncs = await fetch_int(corner.dsn, query) - before
    return counts, syncs / ((IDLE_WARM_UP if is_idle else WARM_UP) + processes) / STEPS


async def memory(corner: Corner, system: System, steps: int) -> int:
    """Watch the resident memory while many processes run, wave after wave."""
    samples: dict[str, list[tuple[float, float]]] = {}
    done = 0
    async with Programs(system, corner) as programs, client_of(programs, corner.amqp_url) as client:
        while done < steps:
            await client.many(min(WAVE, (steps - done + STEPS - 1) // STEPS))
            done = min(steps, done + WAVE * STEPS)
            for name, pid in programs.pids.items():
                samples.setdefault(name, []).append((done, resident_memory(pid)))
            print(f"{done:>9} steps  " + _memory_now(samples), file=sys.stderr, flush=True)
    for name, points in samples.items():
        later = points[len(points) // 2 :]  # the first half fills caches and pools
        rise = f"{slope(later) * 100_000:+.2f} MiB per 100,000 steps" if len(later) > 1 else "too few samples"
        print(
            f"{name}: {points[0][1]:.1f} MiB after the first {WAVE * STEPS} steps, {points[-1][1]:.1f} at the end; {rise}"
        )
    return 0


def _memory_now(samples: dict[str, list[tuple[float, float]]]) -> str:
    return "  ".join(f"{name} {points[-1][1]:.1f} MiB" for name, points in samples.items())


async def profile(corner: Corner, system: System, processes: int, keep: Path | None) -> int:
    """Run under a profiler and print the top of the profile."""
    if sampler() is None:
        print("py-spy is not installed: cProfile, which makes small functions look expensive", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        roles = ("coordinator", "consumer")
        wrap = {role: profiled(role, folder) for role in roles}
        async with Programs(system, corner, wrap=wrap) as programs, client_of(programs, corner.amqp_url) as client:
            await _load(client, processes)
        for role in roles:
            print_top(role, folder)
    return 0


async def _load(client: Client, processes: int) -> None:
    print(f"{processes * STEPS / await client.many(processes):.0f} steps/s under the profiler", file=sys.stderr)
