"""What the session costs in a plain step: a query beside one from an async step, and 1,000 queries beside heartbeats.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.plain_functions

In one process, without RabbitMQ, on a database made for the run. Each function runs as a consumer runs a step's: with the step's
session under its guards, plain ones in a thread. The kinds alternate within each repetition, so the ratio is of one run. The wait
for a thread and for a connection is part of the figure for a step, but not of that for a query; the commit is part of neither.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import text

from orchestrator import user_code
from orchestrator.db.session import Database
from orchestrator.db.step_guard import install_guards
from orchestrator.db.step_session import StepSession
from orchestrator.threads import Threads
from tests.benchmarks.rules import own_database
from tests.servers import NoServersError, Servers

AT_ONCE = (1, 8)
BEAT = 0.005
"""Seconds between two heartbeats: far more often than a consumer's, to see the worst of what they would have to wait."""

QUERY = text("SELECT name FROM workflows WHERE name = 'task_validate_products'")

Run = Callable[[Database, Threads, int], Awaitable[float]]


@dataclass
class Kinds:
    """Milliseconds of each repetition, by the kind of function."""

    plain: list[float] = field(default_factory=list)
    asynchronous: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        plain, asynchronous = statistics.median(self.plain), statistics.median(self.asynchronous)
        return f"{asynchronous:>10.3f}{plain:>10.3f}{plain / asynchronous:>8.2f}"


async def run_plain(database: Database, threads: Threads, queries: int) -> float:
    """Run a plain step of so many queries; return the milliseconds of each."""
    session = StepSession(database.engine)

    def step() -> float:
        begin = time.perf_counter()
        for _ in range(queries):
            session.sync_session.execute(QUERY).all()
        return (time.perf_counter() - begin) * 1000 / queries

    try:
        return await _finish(step, threads, is_async=False)
    finally:
        await session.discard()


async def run_async(database: Database, threads: Threads, queries: int) -> float:
    """Run an async step of so many queries; return the milliseconds of each."""
    session = StepSession(database.engine)

    async def step() -> float:
        begin = time.perf_counter()
        for _ in range(queries):
            (await session.execute(QUERY)).all()
        return (time.perf_counter() - begin) * 1000 / queries

    try:
        return await _finish(step, threads, is_async=True)
    finally:
        await session.discard()


async def _finish(step: Callable[[], object], threads: Threads, *, is_async: bool) -> float:
    outcome = await user_code.run(step, is_async=is_async, seconds=600, what="the step", threads=threads)
    if isinstance(outcome, user_code.Raised):
        raise outcome.error
    assert isinstance(outcome, float)
    return outcome


async def whole_steps(run: Run, database: Database, threads: Threads, at_once: int) -> float:
    """Return the milliseconds until so many steps of one query have ended, all begun at once."""
    begin = time.perf_counter()
    await asyncio.gather(*(run(database, threads, 1) for _ in range(at_once)))
    return (time.perf_counter() - begin) * 1000


async def compare(database: Database, threads: Threads, options: argparse.Namespace) -> dict[str, Kinds]:
    """Measure queries and whole steps of both kinds, in turn."""
    lines: dict[str, Kinds] = {}
    for at_once in AT_ONCE:
        queries, steps = Kinds(), Kinds()
        for number in range(options.reps + 1):
            for run, of_query, of_step in (
                (run_plain, queries.plain, steps.plain),
                (run_async, queries.asynchronous, steps.asynchronous),
            ):
                each = await asyncio.gather(*(run(database, threads, options.queries) for _ in range(at_once)))
                whole = await whole_steps(run, database, threads, at_once)
                if number:  # the first fills caches and opens connections
                    of_query.append(statistics.mean(each))
                    of_step.append(whole)
        lines[f"a query, {at_once} at once"] = queries
        lines[f"a step of one query, {at_once} at once"] = steps
    return lines


async def late(beside: Callable[[], Awaitable[object]]) -> list[float]:
    """Return by how many milliseconds heartbeats are late while something else goes on."""
    found: list[float] = []
    has_beaten = asyncio.Event()

    async def beat() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(BEAT)
            found.append((time.perf_counter() - begin - BEAT) * 1000)
            has_beaten.set()

    beating = asyncio.create_task(beat())
    await beside()
    await has_beaten.wait()  # what goes on beside may take less time than a beat
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating
    return found


async def run(options: argparse.Namespace) -> None:
    """Print both tables."""
    async with own_database(Servers.from_environment(), pool_size=max(AT_ONCE)) as database:
        install_guards(database.engine)
        with Threads("step", max(AT_ONCE)) as threads:
            lines = await compare(database, threads, options)
            beats = {
                "nothing": await late(lambda: asyncio.sleep(options.idle)),
                f"a plain step of {options.long:,} queries": await late(
                    lambda: run_plain(database, threads, options.long)
                ),
                f"an async step of {options.long:,} queries": await late(
                    lambda: run_async(database, threads, options.long)
                ),
            }
    print(f"milliseconds, medians of {options.reps}\n")
    print(f"{'':34}{'async':>10}{'plain':>10}{'ratio':>8}")
    for name, kinds in lines.items():
        print(f"{name:34}{kinds}")
    print(f"\nheartbeats every {BEAT * 1000:g} ms: milliseconds late, beside …\n")
    print(f"{'':34}{'median':>10}{'95 %':>10}{'worst':>8}")
    for name, spans in beats.items():
        high = statistics.quantiles(spans, n=20)[-1] if len(spans) > 1 else max(spans)
        print(f"{name:34}{statistics.median(spans):>10.2f}{high:>10.2f}{max(spans):>8.2f}")


def parser() -> argparse.ArgumentParser:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--reps", type=int, default=50, help="repetitions of each measurement (default 50)")
    found.add_argument("--queries", type=int, default=50, help="queries of a step whose queries are timed (default 50)")
    found.add_argument("--long", type=int, default=1_000, help="queries of the step beside heartbeats (default 1000)")
    found.add_argument("--idle", type=float, default=2.0, help="seconds of heartbeats alone (default 2)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"plain_functions: {error}")
