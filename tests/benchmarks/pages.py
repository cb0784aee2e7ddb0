"""What pages of a hundred rows cost in the API program: at /ui, over HTTP, and as the field's user interface asks by GraphQL.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.pages

In a database made for the run, with as many processes and subscriptions as ``--most`` says, and one process with a log of 1,000
steps. The application runs in this process, without a network between; each request is sent ``--reps`` times, one after the
other. "Processor" is what this program and the server's process have used for one request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import httpx

from orchestrator.db.session import Database
from orchestrator.log import configure_logging
from tests.benchmarks.lists import CATALOGUE, fill, used
from tests.benchmarks.rules import own_database
from tests.existing_ui import read_documents
from tests.integration.api_client import open_api
from tests.servers import NoServersError, Servers

ROWS = 100
STEPS = 1_000

LOG = """
INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at, finished_at)
SELECT $1, n, 'step', 'Step ' || n, 0, 1, 'success', jsonb_build_object('number', n), 'ana', now(), now()
  FROM generate_series(6, $2::int) n
"""

Send = Callable[[], Awaitable[httpx.Response]]


def requests(api: httpx.AsyncClient, process_id: str) -> dict[str, Send]:
    """Return the requests by their names."""
    documents = read_documents()

    def get(path: str) -> Send:
        return lambda: api.get(path)

    def ask(name: str, **variables: object) -> Send:
        body = {"query": documents[f"9.0.0/{name}"], "variables": {"first": ROWS, "after": 0, **variables}}
        return lambda: api.post("/api/graphql", json=body)

    return {
        "/ui/processes": get("/ui/processes"),
        "/ui/processes, a word": get("/ui/processes?q=customer-77"),
        "/ui/subscriptions": get("/ui/subscriptions"),
        f"/ui/processes/ID, {STEPS:,} steps": get(f"/ui/processes/{process_id}"),
        "/api/processes": get(f"/api/processes?range=0,{ROWS - 1}"),
        "GraphQL ProcessList": ask("ProcessList"),
        "GraphQL SubscriptionsList": ask("SubscriptionsList"),
        f"GraphQL ProcessDetail, {STEPS:,} steps": ask("ProcessDetail", processId=process_id),
    }


async def add_long_process(database: Database) -> str:
    """Give the newest process a log of many steps; return its id."""
    process_id = await database.pool.fetchval("SELECT process_id FROM processes ORDER BY started_at DESC LIMIT 1")
    await database.pool.execute(LOG, process_id, STEPS + 5)
    await database.pool.execute("UPDATE processes SET sequence = $2 WHERE process_id = $1", process_id, STEPS + 5)
    return str(process_id)


def find_problem(answer: httpx.Response) -> str | None:
    """Return what is wrong with an answer; GraphQL's errors come with status 200."""
    if not answer.is_success:
        return f"{answer.status_code}: {answer.text[:500]}"
    errors = answer.json().get("errors") if answer.request.method == "POST" else None
    return None if errors is None else str(errors)[:500]


async def run(options: argparse.Namespace) -> None:
    """Send every request some times."""
    configure_logging("console", "warning")
    async with own_database(Servers.from_environment(), pool_size=4) as database:
        await database.pool.execute(CATALOGUE)
        await fill(database, 0, options.most)
        process_id = await add_long_process(database)
        await database.pool.execute("VACUUM ANALYZE processes, subscriptions, processes_subscriptions, process_steps")
        async with open_api(database) as api:
            print(f"milliseconds, of {options.reps}; {options.most:,} processes and subscriptions, pages of {ROWS}\n")
            print(f"{'':40}{'median':>8}{'95 %':>8}{'processor':>11}{'KB':>8}")
            gc.freeze()  # as the API program does
            for name, send in requests(api, process_id).items():
                for _ in range(3):
                    answer = await send()
                    if problem := find_problem(answer):
                        sys.exit(f"pages: {name}: {problem}")
                before, spans = await used(database), []
                for _ in range(options.reps):
                    began = time.perf_counter()
                    await send()
                    spans.append(1000 * (time.perf_counter() - began))
                spent = (await used(database) - before) / options.reps
                high = statistics.quantiles(spans, n=20)[-1]
                size = len(answer.content) / 1024
                print(f"{name:40}{statistics.median(spans):8.1f}{high:8.1f}{spent:11.1f}{size:8.0f}", flush=True)


def parser() -> argparse.ArgumentParser:
    """Read the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--reps", type=int, default=40, help="repetitions of each request (default 40)")
    found.add_argument("--most", type=int, default=100_000, help="rows (default 100000)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"pages: {error}")
