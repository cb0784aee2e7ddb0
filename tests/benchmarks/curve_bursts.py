"""What one point of a curve measures where much comes at once: starts, retries, the loss of the broker's data, an overload."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import httpx

from tests.benchmarks import intake, recovery
from tests.benchmarks.client import client_of
from tests.benchmarks.curve_points import Bench, Figures
from tests.benchmarks.measure import peak_memory, percentile
from tests.benchmarks.singles import PAUSE
from tests.benchmarks.streams import api_program
from tests.benchmarks.systems import Programs, clear

HTTP_CLIENTS = 8
MOST_BY_HTTP = 1000
"""Starts by HTTP; more of them are as fast."""

PATIENCE = 600.0
"""Seconds for a number of processes to be reached."""

_DUE = """
UPDATE processes SET due_at = date_trunc('second', now()) + interval '2 seconds',
                     wake_at = date_trunc('second', now()) + interval '2 seconds'
 WHERE workflow = 'bench_retried' AND status = 'waiting' RETURNING wake_at
"""
_STARTED = """
SELECT count(*) AS stored, EXTRACT(EPOCH FROM max(started_at) - min(started_at))::float8 AS seconds
  FROM processes WHERE started_at > $1 AND workflow = 'bench_noop'
"""
_COMPLETED = "SELECT count(*) FROM processes WHERE status = 'completed' AND workflow = $1"


async def starts(bench: Bench, number: int) -> Figures:
    """Send so many starts at once, by AMQP, and as many at most by eight clients over HTTP."""
    system = bench.system("bench_noop")
    await clear(bench.corner, system)
    async with (
        Programs(system, bench.corner) as programs,
        client_of(programs, bench.corner.amqp_url) as client,
        api_program(bench.corner) as (api, port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api", timeout=60) as http,
        asyncpg.create_pool(bench.corner.dsn, min_size=1, max_size=1) as database,
    ):
        await client.many(20)
        since = await database.fetchval("SELECT now()")
        await client.many(number)
        (stored,) = await database.fetch(_STARTED, since)
        numbers = iter(range(min(number, MOST_BY_HTTP)))
        times: list[float] = []

        async def send() -> None:
            for _ in numbers:
                began = time.perf_counter()
                (await http.post("/processes/bench_noop", json=[])).raise_for_status()
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(HTTP_CLIENTS):
                tasks.create_task(send())
        seconds = time.perf_counter() - began
        memory = {name: peak_memory(pid) for name, pid in programs.pids.items()}
        return {
            "starts/s by AMQP": stored["stored"] / stored["seconds"],
            "starts/s by HTTP": len(times) / seconds,
            "p95 by HTTP, ms": percentile(times, 0.95) * 1000,
            "MiB, coordinator": memory["coordinator"],
            "MiB, consumer": memory["consumer"],
            "MiB, API": peak_memory(api.pid),
        }


async def retries(bench: Bench, number: int) -> Figures:
    """Let the retries of so many processes be due in the same second, and start processes meanwhile, one after the other."""
    system = bench.system("bench_noop")
    await clear(bench.corner, system)
    async with (
        Programs(system, bench.corner) as programs,
        client_of(programs, bench.corner.amqp_url) as client,
        asyncpg.create_pool(bench.corner.dsn, min_size=1, max_size=2) as database,
    ):
        await client.many(20)
        idle = [await client.one() for _ in range(20)]
        await client.start(number, bench.system("bench_retried"))
        await _until(
            programs,
            lambda: database.fetchval("SELECT count(*) FROM processes WHERE status = 'waiting'"),
            number,
        )
        due = await database.fetchval(_DUE)
        wait = await database.fetchval("SELECT EXTRACT(EPOCH FROM $1 - clock_timestamp())::float8", due)
        await asyncio.sleep(max(0.0, wait))
        began = time.perf_counter()
        done = asyncio.create_task(_until(programs, lambda: database.fetchval(_COMPLETED, "bench_retried"), number))
        meanwhile = []
        try:
            while not done.done():
                meanwhile.append(await client.one())
                await asyncio.wait([done], timeout=0.05)
            await done
        finally:
            done.cancel()
        took = time.perf_counter() - began
        again = await database.fetchval("SELECT count(*) FROM processes WHERE published_at IS NOT NULL")
        return {
            "retries/s": number / took,
            "start meanwhile ÷ idle, p50": percentile(meanwhile, 0.5) / percentile(idle, 0.5),
            "slowest start meanwhile, ms": 1000 * max(meanwhile),
            "MiB, coordinator": peak_memory(programs.pids["coordinator"]),
            "MiB, consumer": peak_memory(programs.pids["consumer"]),
            "published again": again,
        }


async def loss(bench: Bench, number: int) -> Figures:
    """Take away the broker's data while so many processes are live."""
    options = argparse.Namespace(program=bench.program, processes=number)
    found = await recovery.measure(bench.servers, bench.corner, options, is_wiped=True)
    return {
        "seconds": found.seconds,
        "processes/s": number / found.seconds,
        "published again": found.again,
        **{f"MiB, {name}": size for name, size in found.memory.items()},
    }


async def overload(bench: Bench, number: int) -> Figures:
    """Send so many starts at once, beside processes that are under way, and to an idle system."""
    options = argparse.Namespace(
        program=bench.program, starts=number, processes=bench.processes, aborts=5, flood=intake.FLOOD, pause=PAUSE
    )
    found = await intake.measure(bench.corner, options)
    assert found.running is not None
    options.processes = 0
    alone = await intake.measure(bench.corner, options)
    return {
        "starts/s": found.intake,
        "refused": found.refused,
        "start on another queue ÷ idle, p50": found.ratio,
        "beside running processes alone ÷ idle, p50": found.running.beside.p50 / found.idle.p50,
        "longest silence, s": found.silence,
        "published again": found.again,
        "steps of running processes, % of alone": 100 * found.running.during / found.running.alone,
        **{f"MiB, {name}": size for name, size in found.memory.items()},
        "starts/s, beside nothing else": alone.intake,
        "the same, beside starts alone": alone.ratio,
    }


async def _until(programs: Programs, count: Callable[[], Awaitable[int]], wanted: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await count() < wanted:
            programs.check()
            await asyncio.sleep(0.05)
