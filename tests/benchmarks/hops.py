"""Where the time of a step goes on an idle system, hop by hop, beside what each hop costs by itself.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.hops

One coordinator, one consumer, one command per step, processes of ten steps one after the other. The programs run with some of
their functions wrapped (:mod:`tests.benchmarks.traced`), and all clocks are of one machine. "Bare" is the same operation on
the same servers by a program that does nothing else, with the client libraries as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from tests.benchmarks import traced
from tests.benchmarks.client import client_of
from tests.benchmarks.measure import percentile
from tests.benchmarks.systems import BenchmarkError, Corner, Programs, clear, engine_system, own_corner
from tests.benchmarks.workload import STEPS
from tests.servers import NoServersError, Servers

COMMAND, RESULT, EVENT = "step.command", "step.result", "step.event"
HOPS = (
    ("command: coordinator → consumer", f"{COMMAND} published", f"{COMMAND} received", "message"),
    ("… until the claim is sent", f"{COMMAND} received", "claim sent", ""),
    ("claim", "claim sent", "claim answered", "statement"),
    ("run the step, decide", "claim answered", "outcome sent", ""),
    ("outcome, with its commit", "outcome sent", "outcome answered", "commit"),
    ("… until the result is published", "outcome answered", f"{RESULT} published", ""),
    ("result: consumer → coordinator", f"{RESULT} published", f"{RESULT} received", "message"),
    ("… until the event is published", f"{RESULT} received", f"{EVENT} published", ""),
    ("event: confirm", f"{EVENT} published", f"{EVENT} confirmed", "confirm"),
    ("… until the next command", f"{EVENT} confirmed", f"{COMMAND} published", ""),
)
"""Name, begin, end, and which bare operation it is; nothing in between where there is none."""

BESIDE = (
    ("command: confirm", f"{COMMAND} published", f"{COMMAND} confirmed"),
    ("result: confirm", f"{RESULT} published", f"{RESULT} confirmed"),
)
"""What goes on meanwhile and holds nothing up."""

Times = Mapping[tuple[str, str], list[float]]


def read_hops(folder: Path) -> Times:
    """Return how long each hop has taken, in milliseconds, from what the programs have recorded."""
    processes: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for path in folder.iterdir():
        for at, what, process in json.loads(path.read_text()):
            processes[process].append((at, what))
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    spans = [(begin, end) for _, begin, end, *_ in (*HOPS, *BESIDE)]
    for records in processes.values():
        last: dict[str, float] = {}
        for at, what in sorted(records):
            for begin, end in spans:
                # A step's, not that of a step before it.
                if end == what and last.get(begin, 0.0) > last.get(end, 0.0):
                    found[begin, end].append((at - last[begin]) * 1000)
            last[what] = at
    return found


async def time_bare(corner: Corner, times: int) -> dict[str, float]:
    """Return the median of each operation by itself, in milliseconds."""
    database = await asyncpg.connect(corner.dsn)
    try:
        await database.execute("CREATE TABLE IF NOT EXISTS bare (number int PRIMARY KEY, value int); TRUNCATE bare")
        await database.execute("INSERT INTO bare VALUES (1, 0)")
        update = "UPDATE bare SET value = value + 1 WHERE number = 1"
        commit = await _repeat(times, lambda: database.execute(update))
        await database.execute("SET synchronous_commit = off")
        statement = await _repeat(times, lambda: database.execute(update))
    finally:
        await database.close()
    async with await aio_pika.connect(corner.amqp_url) as reading, await aio_pika.connect(corner.amqp_url) as writing:
        channel = await reading.channel(publisher_confirms=False)
        queue = await channel.declare_queue("bare", durable=True, arguments={"x-queue-type": corner.queue_type})
        arrived = asyncio.Event()

        async def take(message: AbstractIncomingMessage) -> None:
            arrived.set()
            await message.ack()

        await queue.consume(take)
        publishing = await writing.channel(publisher_confirms=True)
        nobody = await publishing.declare_exchange("bare.nobody", aio_pika.ExchangeType.TOPIC, durable=True)
        message = aio_pika.Message(b"x" * 300, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)

        async def pass_on() -> None:
            arrived.clear()
            confirmed = asyncio.ensure_future(publishing.default_exchange.publish(message, "bare"))
            await arrived.wait()
            spent.append(time.perf_counter())
            await confirmed

        spent: list[float] = []
        began: list[float] = []

        async def timed() -> None:
            began.append(time.perf_counter())
            await pass_on()

        await _repeat(times, timed)
        passed = statistics.median(end - begin for begin, end in zip(began, spent, strict=True)) * 1000
        confirm = await _repeat(times, lambda: nobody.publish(message, "key", mandatory=False))
    return {"commit": commit, "statement": statement, "message": passed, "confirm": confirm}


async def _repeat(times: int, action: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await action()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def measure(corner: Corner, options: argparse.Namespace) -> Times:
    """Run processes one after the other; return how long each hop has taken."""
    traced_program = (sys.executable, "-m", "tests.benchmarks.traced")
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
        plain = engine_system("orchestrator", run_ahead=0)
        system = replace(
            plain,
            coordinator=(*traced_program, "coordinator"),
            consumer=(*traced_program, "consumer"),
            environment={**plain.environment, traced.FOLDER_VARIABLE: folder},
        )
        await clear(corner, system)
        async with Programs(system, corner) as programs, client_of(programs, corner.amqp_url) as client:
            whole = [await client.one() for _ in range(options.processes)]
        print(f"ten steps, start to completion: {statistics.median(whole) * 1000:.1f} ms (median of {len(whole)})\n")
        return read_hops(Path(folder))


def print_hops(found: Times, bare: Mapping[str, float]) -> None:
    """Print the median and the p95 of each hop, and what it costs by itself."""
    print("| hop | p50, ms | p95, ms | bare, ms |\n| --- | --- | --- | --- |")
    whole = least = 0.0
    for name, begin, end, operation in HOPS:
        times = found.get((begin, end), [])
        if not times:
            raise BenchmarkError(f"no step has shown {name!r}")
        whole += statistics.median(times)
        least += bare.get(operation, 0.0)
        print(_row(name, times, f"{bare[operation]:.2f}" if operation else "–"))
    print(f"| a step, sum of the medians | {whole:.2f} | | {least:.2f} |")
    print(f"| {STEPS} steps | {whole * STEPS:.1f} | | {least * STEPS:.1f} |")
    for name, begin, end in BESIDE:
        print(_row(f"beside: {name}", found[begin, end], "–"))


def _row(name: str, times: list[float], bare: str) -> str:
    return f"| {name} | {statistics.median(times):.2f} | {percentile(times, 0.95):.2f} | {bare} |"


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    try:
        servers = Servers.from_environment()
    except NoServersError as error:
        raise BenchmarkError(str(error)) from None
    async with own_corner(servers, options.queue_type) as corner:
        before = await time_bare(corner, options.bare)
        found = await measure(corner, options)
        after = await time_bare(corner, options.bare)
        print_hops(found, {name: (before[name] + after[name]) / 2 for name in before})


def main() -> int:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--processes", type=int, default=50, help="one after the other (default 50)")
    found.add_argument("--bare", type=int, default=300, help="repetitions of each bare operation, twice (default 300)")
    found.add_argument("--queue-type", choices=("quorum", "classic"), default="quorum")
    try:
        uvloop.run(run(found.parse_args()))
    except BenchmarkError as error:
        print(f"hops: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
