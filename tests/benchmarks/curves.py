"""How the engine's figures change with the load and with what is stored, as pictures.

    scripts/services up; eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.curves            # small sizes, to see that it works
    .venv/bin/python -m tests.benchmarks.curves --full     # those of the documentation, on a quiet machine

One coordinator and one consumer. Each point is a run of its own; the points of a curve are measured one after the other, so a
machine that others use bends it. The figures are also written as JSON beside each picture.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import uvloop

from tests.benchmarks.charts import draw
from tests.benchmarks.client import client_of
from tests.benchmarks.measure import Meter
from tests.benchmarks.systems import (
    BenchmarkError,
    Corner,
    Programs,
    System,
    clear,
    engine_system,
    execute,
    fetch_int,
    own_corner,
)
from tests.benchmarks.workload import BALLAST_VARIABLE, HUNDRED, LONG, SHORT, STEPS
from tests.servers import NoServersError, Servers

ORCHESTRATOR = str(Path(sys.executable).with_name("orchestrator"))
WARM_UP = 20
FOLDER = Path("docs/curves")

_P95 = """
SELECT COALESCE(1000 * percentile_cont(0.95) WITHIN GROUP (ORDER BY EXTRACT(EPOCH FROM updated_at - started_at)), 0)
  FROM processes WHERE workflow = $1 AND started_at > now() - make_interval(secs => $2)
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
AT_ONCE = 10_000
"""Finished processes that are made in one statement."""

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """One picture: a measurement for each number."""

    title: str
    below: str
    measure: Callable[[Corner, System, int, int], Awaitable[Figures]]
    small: Sequence[int]
    full: Sequence[int]


async def run_many(
    corner: Corner, system: System, workflow: str, steps: int, count: int, extra: Mapping[str, str] | None = None
) -> Figures:
    """Run so many processes at once; return rates, p95 of a process, what was written and the memory."""
    started = replace(
        system,
        body=engine_system("", workflow=workflow).body,
        completed=f"process.{workflow}.completed",
        environment={**system.environment, **(extra or {})},
    )
    async with Programs(started, corner) as programs, client_of(programs, corner.amqp_url) as client:
        await client.many(min(WARM_UP, count))
        before = await fetch_int(corner.dsn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        meter = Meter(programs.pids)
        seconds = await client.many(count)
        meter.stop()
        written = await fetch_int(corner.dsn, "SELECT (pg_current_wal_lsn() - '0/0')::bigint") - before
        connection = await asyncpg.connect(corner.dsn)
        try:
            p95 = float(await connection.fetchval(_P95, workflow, seconds + 0.1))
        finally:
            await connection.close()
    return {
        "steps/s": count * steps / seconds,
        "p95, ms": p95,
        "MiB": meter.memory["coordinator"] + meter.memory["consumer"],
        "WAL kB a step": written / 1024 / (count * steps),
        "processes/s": count / seconds,
    }


async def live(corner: Corner, system: System, number: int, _: int) -> Figures:
    """Run so many processes at once."""
    await clear(corner, system)
    return await run_many(corner, system, "bench", STEPS, number)


async def state(corner: Corner, system: System, number: int, count: int) -> Figures:
    """Run processes whose state has so many kilobytes."""
    await clear(corner, system)
    limits = {BALLAST_VARIABLE: str(number * 1024), "ORCHESTRATOR_STATE_HARD_LIMIT": str(2 * 1024 * (number + 1024))}
    return await run_many(corner, system, "bench_heavy", STEPS, max(10, count // number), limits)


async def length(corner: Corner, system: System, number: int, count: int) -> Figures:
    """Run processes of so many steps."""
    await clear(corner, system)
    names = {1: "bench_noop", SHORT: "bench_short", STEPS: "bench", HUNDRED: "bench_hundred", LONG: "bench_long"}
    return await run_many(corner, system, names[number], number, max(2, count * STEPS // number))


async def finished(corner: Corner, system: System, number: int, count: int) -> Figures:
    """Run processes while so many finished ones are in the tables."""
    await clear(corner, system)
    async with Programs(system, corner) as programs, client_of(programs, corner.amqp_url) as client:
        await client.one()
    connection = await asyncpg.connect(corner.dsn)
    try:
        processes = await connection.fetchval(_COLUMNS, "processes", ["process_id", "request_key"])
        steps = await connection.fetchval(_COLUMNS, "process_steps", ["process_id"])
        of_log = ", ".join(f"log.{one}" for one in steps.split(", "))
        one = await connection.fetchval("SELECT process_id FROM processes LIMIT 1")
        statement = _FINISHED.format(processes=processes, steps=steps, of_log=of_log)
        for begin in range(0, number, AT_ONCE):
            await connection.execute(statement, one, min(AT_ONCE, number - begin))
    finally:
        await connection.close()
    await execute(corner.dsn, "ANALYZE")
    return await run_many(corner, system, "bench", STEPS, count)


CURVES = {
    "live": Curve("Processes at once", "processes started at once", live, (1, 10), (1, 10, 100, 1_000, 10_000)),
    "state": Curve("Size of the state", "kB of state", state, (1, 10), (1, 10, 100, 1_000)),
    "length": Curve("Steps of a process", "steps", length, (1, STEPS), (1, STEPS, HUNDRED, LONG)),
    "finished": Curve(
        "Finished processes in the tables",
        "finished processes",
        finished,
        (10, 100),
        (100, 10_000, 100_000, 1_000_000),
    ),
}


async def run(options: argparse.Namespace) -> None:
    """Measure and draw."""
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        raise BenchmarkError(str(error)) from None
    options.folder.mkdir(parents=True, exist_ok=True)
    async with own_corner(servers, "quorum") as corner:
        for name in options.curve or CURVES:
            curve = CURVES[name]
            found: dict[int, Figures] = {}
            for number in curve.full if options.full else curve.small:
                system = engine_system(options.program, run_ahead=options.run_ahead)
                found[number] = await curve.measure(corner, system, number, options.processes)
                print(name, number, {key: round(value, 2) for key, value in found[number].items()}, flush=True)
            _write(options.folder, name, curve, found)


def _write(folder: Path, name: str, curve: Curve, found: dict[int, Figures]) -> None:
    shown = ("steps/s", "p95, ms", "WAL kB a step" if name == "state" else "MiB")
    lines = {key: [(number, figures[key]) for number, figures in found.items()] for key in shown}
    folder.joinpath(f"{name}.svg").write_text(draw(curve.title, curve.below, lines))
    rounded = {number: {key: round(value, 2) for key, value in figures.items()} for number, figures in found.items()}
    document = {"curve": name, "cores": os.cpu_count(), "figures": rounded}
    folder.joinpath(f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--curve", choices=tuple(CURVES), action="append", help="default all")
    found.add_argument("--full", action="store_true", help="the sizes of the documentation; an hour or so")
    found.add_argument(
        "--processes", type=int, default=20, help="in each run where they are not counted (--full: take 500)"
    )
    found.add_argument(
        "--run-ahead", type=int, default=0, metavar="STEPS", help="ORCHESTRATOR_RUN_AHEAD of the consumer"
    )
    found.add_argument("--folder", type=Path, default=FOLDER, help=f"for the pictures (default {FOLDER})")
    found.add_argument("--program", default=ORCHESTRATOR, metavar="PATH", help="the orchestrator program to measure")
    return found


def main() -> int:
    """Run the program."""
    try:
        uvloop.run(run(parser().parse_args()))
    except BenchmarkError as error:
        print(f"curves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
