"""What lists cost: pages of processes and subscriptions, filtered, sorted, searched and counted; with few and with many rows.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.lists

In a database made for the run. Each process has a state of one kilobyte and has touched a subscription; one in two hundred is
running. Each question is asked ``--reps`` times, each time in a transaction of its own, the connection's round trips included.
"Processor" is what this program and the server's process have used for one question: unlike the time on the clock, it does not
depend on what else the machine does. (The server must run on this machine, and Linux.)
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import read_request
from orchestrator.db.lists.subscriptions import page_subscriptions
from orchestrator.db.processes.counts import count_statuses
from orchestrator.db.session import Database
from tests.benchmarks.rules import Question, own_database, timed
from tests.servers import NoServersError, Servers

SIZES = (1_000, 10_000, 100_000)
BATCH = 5_000

CATALOGUE = """
INSERT INTO products (name, product_type, tag)
SELECT 'Product ' || n, 'Type' || n % 5, 'TAG' || n % 7 FROM generate_series(1, 40) n;
INSERT INTO workflows (name, target, is_task, description)
SELECT t || '_thing_' || n, upper(t), t = 'validate', initcap(t) || ' a thing of kind ' || n
  FROM generate_series(1, 12) n, unnest(ARRAY['create', 'modify', 'terminate', 'validate']) t;
INSERT INTO product_blocks (name) VALUES ('Port');
"""
SUBSCRIPTIONS = """
WITH made AS (
INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, start_date, created_at, note)
SELECT gen_random_uuid(), product.product_id, 'customer-' || n % 500,
       'node ams-' || n || ' at site ' || n % 300 || ' of customer ' || n % 500,
       (ARRAY['active', 'active', 'provisioning', 'terminated', 'active', 'initial'])[1 + n % 6], n % 40 <> 0,
       now() - n * interval '1 minute', now() - n * interval '1 minute', CASE WHEN n % 10 = 0 THEN 'a note about ' || n END
  FROM generate_series($1::int + 1, $2::int) n
  JOIN (SELECT product_id, row_number() OVER (ORDER BY name) AS k FROM products) product ON product.k = 1 + n % 40
RETURNING subscription_id, created_at
)
INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, label, resources)
SELECT gen_random_uuid(), made.subscription_id, b.product_block_id, 'port',
       jsonb_build_object('port_name', 'xe-0/0/' || k, 'vlan', k % 4096, 'serial', 'SN' || k, 'mode', 'tagged')
  FROM (SELECT *, $1::int + row_number() OVER (ORDER BY created_at DESC) AS k FROM made) made, product_blocks b
"""
PROCESSES = """
WITH made AS (
    INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence,
                           failures, lost, rewinds, state, started_by, actor, started_at, updated_at)
    SELECT gen_random_uuid(), workflow.workflow_id, workflow.name, workflow.is_task,
           CASE WHEN n % 200 = 0 THEN 'running' WHEN n % 100 = 1 THEN 'failed' WHEN n % 50 = 2 THEN 'aborted'
                ELSE 'completed' END,
           3, 'step ' || n % 7, false, 1, 5, 0, 0, 0, jsonb_build_object('text', repeat(md5(n::text), 32)),
           'user-' || n % 60 || '@example.org', 'user', now() - n * interval '1 minute', now() - n * interval '50 seconds'
      FROM generate_series($1::int + 1, $2::int) n
      JOIN (SELECT *, row_number() OVER (ORDER BY name) AS k FROM workflows) workflow ON workflow.k = 1 + n % 48
    RETURNING process_id, started_at
)
INSERT INTO processes_subscriptions
SELECT process_id, subscription_id
  FROM (SELECT process_id, row_number() OVER (ORDER BY started_at) AS k FROM made) a
  JOIN (SELECT subscription_id, row_number() OVER (ORDER BY created_at) AS k FROM subscriptions
         WHERE created_at < now() - $1::int * interval '1 minute') b USING (k)
"""

Ask = dict[str, Any]
PROCESS_LISTS: dict[str, Ask] = {
    "newest": {},
    "newest 1000": {"rows": "0,999"},
    "from row 50,000 on": {"rows": "50000,50009"},
    "of a status": {"filters": ["last_status,failed"]},
    "no tasks, of several statuses": {"filters": ["is_task,false", "last_status,created-running-suspended-failed"]},
    "of a workflow": {"filters": ["workflow_name,modify_thing_3"]},
    "of a user": {"filters": ["created_by,user-7@example.org"]},
    "of a product": {"filters": ["product,Product 7"]},
    "by last change": {"sort": ["last_modified_at,desc"]},
    "by last change, of a status": {"sort": ["last_modified_at,desc"], "filters": ["last_status,completed|aborted"]},
    "by workflow": {"sort": ["workflow_name,desc"]},
    "by user": {"sort": ["created_by,asc"]},
    "by status": {"sort": ["last_status,asc"]},
    "search: few fit": {"query": "ams-77"},
    "search: a customer": {"query": "customer-77"},
    "search: half fits": {"query": "node"},
    "search: a prefix": {"query": "user-1*"},
    "search: two words": {"query": "validate ams-7*"},
    "search: two words, many of each": {"query": "validate completed"},
    "search: a phrase and a column": {"query": '"site 7" status:completed'},
    "search: without a word": {"query": "terminate -customer-77"},
    "search: nothing fits": {"query": "there-is-none"},
}
SUBSCRIPTION_LISTS: dict[str, Ask] = {
    "newest": {},
    "from row 50,000 on": {"rows": "50000,50009"},
    "of a status": {"filters": ["status,provisioning"]},
    "not terminated": {"filters": ["status,!terminated"]},
    "out of sync": {"filters": ["insync,false"]},
    "of a product": {"filters": ["product,Product 7"]},
    "of a customer": {"filters": ["customer_id,customer-77"]},
    "by start": {"sort": ["start_date,desc"]},
    "by product": {"sort": ["product,asc"]},
    "by tag, of a status": {"sort": ["tag,desc"], "filters": ["status,active"]},
    "by description": {"sort": ["description,asc"]},
    "search: few fit": {"query": "ams-77"},
    "search: a customer": {"query": "customer-77"},
    "search: all fit": {"query": "node"},
    "search: a prefix": {"query": "ams-7*"},
    "search: a word and a product": {"query": "node tag3"},
    "search: a phrase and a column": {"query": '"site 7" status:active'},
    "search: without a word": {"query": "-node"},
    "search: nothing fits": {"query": "there-is-none"},
    "search: a value of a block": {"query": "sn777"},
    "search: values of blocks, a prefix": {"query": "sn77* tagged"},
    "search: a value that all blocks have": {"query": "tagged"},
    "search: a value and a word": {"query": "site-77 tagged"},
}


def questions() -> dict[str, Question]:
    """Return the questions by their names; pages of 10 rows unless they say otherwise."""
    found: dict[str, Question] = {}

    def asking(page: Callable[..., Any], ask: Ask) -> Question:
        request = read_request(**{"rows": "0,9", **ask})
        return lambda session: page(session, request)

    for name, ask in PROCESS_LISTS.items():
        found[f"processes, {name}"] = asking(page_processes, ask)
    for name, ask in SUBSCRIPTION_LISTS.items():
        found[f"subscriptions, {name}"] = asking(page_subscriptions, ask)
    found["processes, counts by status"] = count_statuses
    return found


async def fill(database: Database, before: int, size: int) -> None:
    """Add subscriptions and processes, in steps that end before the engine's timeout of a statement."""
    for begin in range(before, size, BATCH):
        await database.pool.execute(SUBSCRIPTIONS, begin, min(begin + BATCH, size))
        await database.pool.execute(PROCESSES, begin, min(begin + BATCH, size))


async def used(database: Database) -> float:
    """Return the milliseconds of processor time that the server's processes for this database and this program have used."""
    pids = await database.pool.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    return sum(processor(row["pid"]) for row in pids) + time.process_time() * 1000


def processor(pid: int) -> float:
    """Return the milliseconds of processor time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


async def run(options: argparse.Namespace) -> None:
    """Ask everything in turn, with few and with many rows."""
    figures: dict[str, list[tuple[float, float, float]]] = {}
    sizes = [size for size in SIZES if size <= options.most]
    async with own_database(Servers.from_environment()) as database:
        await database.pool.execute(CATALOGUE)
        before = 0
        for size in sizes:
            await fill(database, before, size)
            before = size
            await database.pool.execute("VACUUM ANALYZE processes, subscriptions, processes_subscriptions")
            gc.freeze()  # as the API program does
            for name, question in questions().items():
                await timed(database, question, 3)
                before_it = await used(database)
                times = await timed(database, question, options.reps)
                figures.setdefault(name, []).append((*times, (await used(database) - before_it) / options.reps))
    print(f"milliseconds, median (95 %) processor, of {options.reps}; page and count together\n")
    print(f"{'':48}" + "".join(f"{f'of {size:,}':>24}" for size in sizes))
    for name, found in figures.items():
        cells = "".join(f"{f'{median:.1f} ({high:.1f}) {spent:.1f}':>24}" for median, high, spent in found)
        print(f"{name:48}{cells}")


def parser() -> argparse.ArgumentParser:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--reps", type=int, default=40, help="repetitions of each question (default 40)")
    found.add_argument("--most", type=int, default=SIZES[-1], help="rows at most (default 100000)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"lists: {error}")
