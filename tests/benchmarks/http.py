"""What one API program serves: a process, a list of processes, and starts.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.http

One API program, one coordinator, one consumer; clients in this process send one request after another, each on a connection of
its own, and share the machine with what they measure. "To the first step" is the time from the start's transaction until the
first step is done, while more is started.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg
import httpx

from tests.benchmarks.client import READY_WITHIN, client_of
from tests.benchmarks.measure import percentile
from tests.benchmarks.streams import ORCHESTRATOR, api_program
from tests.benchmarks.systems import BenchmarkError, Corner, Programs, engine_system, own_corner
from tests.servers import NoServersError, Servers

FIRST_STEP = """
SELECT EXTRACT(EPOCH FROM min(s.finished_at) - p.started_at)::float8 AS seconds
  FROM processes p JOIN process_steps s USING (process_id)
 WHERE s.kind = 'step' AND s.status = 'success' AND p.started_at >= $1 GROUP BY p.process_id
"""

Send = Callable[[httpx.AsyncClient, int], Awaitable[httpx.Response]]


async def load(url: str, name: str, requests: int, clients: int, send: Send) -> None:
    """Send requests from some clients at once, and print how many were answered and how fast."""
    seconds: list[float] = []
    numbers = iter(range(requests))

    async def work() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for number in numbers:
                began = time.perf_counter()
                answer = await send(client, number)
                seconds.append(time.perf_counter() - began)
                if not answer.is_success:
                    raise BenchmarkError(f"{name}: {answer.status_code}: {answer.text}")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(work())
    rate = requests / (time.perf_counter() - began)
    p50, p95 = (1e3 * percentile(seconds, fraction) for fraction in (0.5, 0.95))
    print(f"| {name} | {clients} | {rate:.0f} | {p50:.1f} | {p95:.1f} |", flush=True)


async def measure(corner: Corner, requests: int) -> None:
    """Start processes, then read them."""
    system = engine_system(ORCHESTRATOR, workflow="bench_noop")
    async with (
        Programs(system, corner) as programs,
        api_program(corner) as (_, port),
        client_of(programs, corner.amqp_url) as client,
        asyncpg.create_pool(corner.dsn, min_size=1, max_size=1) as database,
    ):
        await client.one()  # everything is imported and connected
        url = f"http://127.0.0.1:{port}/api"
        print("| request | clients | requests/s | p50, ms | p95, ms |\n| --- | --- | --- | --- | --- |")
        for clients in (1, 8):
            since = await database.fetchval("SELECT now()")
            await load(url, "POST start", requests, clients, lambda api, _: api.post("/processes/bench_noop", json=[]))
            times = await wait_for_first_steps(database, since, requests)
            p50, p95 = (1e3 * percentile(times, fraction) for fraction in (0.5, 0.95))
            print(f"| … to the first step | {clients} | | {p50:.1f} | {p95:.1f} |", flush=True)
        ids = [str(row[0]) for row in await database.fetch("SELECT process_id FROM processes")]
        for clients in (1, 8):
            await load(
                url,
                "GET process",
                requests,
                clients,
                lambda api, number: api.get(f"/processes/{ids[number % len(ids)]}"),
            )
        for clients in (1, 8):
            await load(url, "GET list, 25 of them", requests, clients, lambda api, _: api.get("/processes?range=0,24"))


async def wait_for_first_steps(database: asyncpg.Pool, since: datetime, processes: int) -> list[float]:
    """Wait until so many processes have done their first step; return the seconds of each from its start."""
    async with asyncio.timeout(READY_WITHIN):
        while len(rows := await database.fetch(FIRST_STEP, since)) < processes:  # noqa: ASYNC110 - another program's doing
            await asyncio.sleep(0.1)
    return [row["seconds"] for row in rows]


async def main(options: argparse.Namespace) -> None:
    """Measure in a database and a virtual host made for the run."""
    async with own_corner(Servers.from_environment(), "classic") as corner:
        await measure(corner, options.requests)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--requests", type=int, default=300, help="of each kind and number of clients (default 300)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parser().parse_args())))
    except (NoServersError, BenchmarkError) as error:
        sys.exit(f"http: {error}")
