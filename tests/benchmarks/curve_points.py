"""What one point of a curve measures: processes at once, sizes of states, steps, what is stored, consumers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import asyncpg

from tests.benchmarks.client import Client, client_of
from tests.benchmarks.measure import Meter
from tests.benchmarks.statements import CountingProxy
from tests.benchmarks.systems import Corner, Programs, System, clear, engine_system, execute
from tests.benchmarks.workload import BALLAST_VARIABLE, HUNDRED, LONG, NAPS, SHORT, STEPS
from tests.servers import Servers

WARM_UP = 20
ONE_BY_ONE = 20
"""Runs of a point in which so few processes are started that one run says little."""

SLOTS = 10
"""Steps that a consumer runs at once while it is counted what a second one brings."""

AT_ONCE = 10_000
"""Finished processes that are made in one statement."""

_P95 = """
SELECT COALESCE(1000 * percentile_cont(0.95) WITHIN GROUP (ORDER BY EXTRACT(EPOCH FROM updated_at - started_at)), 0)
  FROM processes WHERE workflow = $1 AND started_at > $2
"""
_FINISHED = """
WITH made AS (
    INSERT INTO processes (process_id, {processes}) SELECT gen_random_uuid(), {processes}
      FROM processes CROSS JOIN generate_series(1, $2) WHERE process_id = $1 RETURNING process_id
)
INSERT INTO process_steps (process_id, {steps})
SELECT made.process_id, {of_log} FROM made CROSS JOIN process_steps AS log WHERE log.process_id = $1
"""
_COLUMNS = """
SELECT string_agg(column_name, ', ') FROM information_schema.columns
 WHERE table_name = $1 AND is_generated = 'NEVER' AND column_name <> ALL($2)
"""
_WRITTEN = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and what is measured.

    Args:
        processes: in each run in which they are not what is counted.
        run_ahead: ``ORCHESTRATOR_RUN_AHEAD``; ``None`` for the engine's default.
    """

    servers: Servers
    corner: Corner
    program: str
    processes: int
    run_ahead: int | None

    def system(self, workflow: str, extra: Mapping[str, str] | None = None) -> System:
        """Return the engine with the start command of a workflow."""
        system = engine_system(self.program, workflow=workflow, run_ahead=self.run_ahead)
        return replace(system, environment={**system.environment, **(extra or {})})


async def live(bench: Bench, number: int) -> Figures:
    """Run so many processes at once."""
    await clear(bench.corner, bench.system("bench"))
    return await _run(bench, bench.system("bench"), STEPS, number)


async def state(bench: Bench, number: int) -> Figures:
    """Run processes whose state has so many kilobytes, and count what is written and sent for a step after the first."""
    limits = {BALLAST_VARIABLE: str(number * 1024), "ORCHESTRATOR_STATE_HARD_LIMIT": str(2 * 1024 * (number + 1024))}
    system = bench.system("bench_heavy", limits)
    await clear(bench.corner, system)
    # The command of the first step carries the state on its way to the row once; what matters is each step after it.
    return await _run(
        bench, system, STEPS, max(10, min(bench.processes, 2 * bench.processes // number)), has_proxy=True
    )


async def length(bench: Bench, number: int) -> Figures:
    """Run processes of so many steps."""
    names = {1: "bench_noop", SHORT: "bench_short", STEPS: "bench", HUNDRED: "bench_hundred", LONG: "bench_long"}
    system = bench.system(names[number])
    await clear(bench.corner, system)
    return await _run(bench, system, number, max(2, bench.processes * STEPS // number // (1 if number > 1 else 4)))


async def finished(bench: Bench, number: int) -> Figures:
    """Run processes while so many finished ones, with a log of ten steps each, are in the tables.

    Those of a smaller number are left from the point before.
    """
    system = bench.system("bench")
    connection = await asyncpg.connect(bench.corner.dsn)
    try:
        there = await connection.fetchval("SELECT count(*) FROM processes")
        if there > number:
            await clear(bench.corner, system)
            there = 0
    finally:
        await connection.close()
    if not there:
        async with Programs(system, bench.corner) as programs, client_of(programs, bench.corner.amqp_url) as client:
            await client.one()
    await _fill(bench.corner, number - there)
    await execute(bench.corner.dsn, "ANALYZE processes, process_steps")
    return await _run(bench, system, STEPS, bench.processes)


async def consumers(bench: Bench, number: int) -> Figures:
    """Run steps that sleep for 50 ms on so many consumers of ten slots each."""
    system = bench.system("bench_napping")
    await clear(bench.corner, system)
    system = replace(system, consumer=(*system.consumer, "--concurrency", str(SLOTS)))
    count = bench.processes // 2 * number
    return await _run(bench, system, NAPS, max(SLOTS, count), consumers=number)


async def _fill(corner: Corner, number: int) -> None:
    """Copy the oldest process, on two connections: each copy is written by one processor."""
    connection = await asyncpg.connect(corner.dsn)
    try:
        processes = await connection.fetchval(_COLUMNS, "processes", ["process_id", "request_key"])
        steps = await connection.fetchval(_COLUMNS, "process_steps", ["process_id"])
        one = await connection.fetchval("SELECT process_id FROM processes ORDER BY started_at LIMIT 1")
    finally:
        await connection.close()
    of_log = ", ".join(f"log.{column}" for column in steps.split(", "))
    statement = _FINISHED.format(processes=processes, steps=steps, of_log=of_log)
    batches = iter([min(AT_ONCE, number - begin) for begin in range(0, number, AT_ONCE)])

    async def work() -> None:
        connection = await asyncpg.connect(corner.dsn, server_settings={"synchronous_commit": "off"})
        try:
            for batch in batches:
                await connection.execute(statement, one, batch)
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(work())


async def _run(
    bench: Bench, system: System, steps: int, count: int, *, consumers: int = 1, has_proxy: bool = False
) -> Figures:
    """Run so many processes at once; return rates, p95 of a process, what was written and sent, and the memory."""
    workflow = system.completed.split(".")[1]
    rounds = math.ceil(ONE_BY_ONE / count) if count < ONE_BY_ONE and steps <= STEPS else 1
    async with AsyncExitStack() as stack:
        overrides = {}
        proxies: list[CountingProxy] = []
        if has_proxy:
            for name in ("coordinator", "consumer"):
                proxies.append(await stack.enter_async_context(CountingProxy(bench.corner.database_url)))
                overrides[name] = {"ORCHESTRATOR_DATABASE_URL": proxies[-1].url}
        programs = await stack.enter_async_context(Programs(system, bench.corner, consumers, overrides=overrides))
        client: Client = await stack.enter_async_context(client_of(programs, bench.corner.amqp_url))
        connection = await asyncpg.connect(bench.corner.dsn)
        stack.push_async_callback(connection.close)
        await client.many(min(WARM_UP, count))
        for proxy in proxies:
            proxy.counts.clear()
        since, before = await connection.fetchval("SELECT now()"), await connection.fetchval(_WRITTEN)
        meter = Meter(programs.pids)
        seconds = sum([await client.many(count) for _ in range(rounds)])
        meter.stop()
        written = await connection.fetchval(_WRITTEN) - before
        p95 = float(await connection.fetchval(_P95, workflow, since))
    done = rounds * count * steps
    figures = {
        "steps/s": done / seconds,
        "p95, ms": p95,
        "MiB, coordinator": meter.memory["coordinator"],
        "MiB, consumer": meter.memory["consumer"],
        "WAL kB a step": written / 1024 / done,
        "other work, %": meter.others,
    }
    if proxies:
        sent = sum(proxy.counts["sent"] + proxy.counts["received"] for proxy in proxies)
        figures["wire kB a step"] = sent / 1024 / done
    return figures
