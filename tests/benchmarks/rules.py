"""What the questions about subscriptions cost: which workflows may run, and a page of a list; with few rows and with many.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.rules

In a database made for the run. The subscription that is asked about is used by ``--users`` others. Each question is asked with
1,000 and with 10,000 other subscriptions around it – and 1,000 and 10,000 that it has nothing to do with must make no
difference. Beside the median stand the kinds of nodes in PostgreSQL's plan.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database
from orchestrator.services.subscriptions import list_subscriptions, show, workflows_for
from tests.servers import NoServersError, Servers, drop_database

Question = Callable[[AsyncSession], Awaitable[object]]

SIZES = (1_000, 10_000)
HUB = uuid4()

CATALOGUE = """
INSERT INTO products (name, product_type) VALUES ('Node', 'Node'), ('Port', 'Port');
INSERT INTO product_blocks (name) VALUES ('NodeBlock'), ('PortBlock');
INSERT INTO workflows (name, target) SELECT 'modify_' || n, 'MODIFY' FROM generate_series(1, 9) n;
INSERT INTO workflows (name, target) VALUES ('create', 'CREATE'), ('terminate', 'TERMINATE'), ('validate', 'VALIDATE');
INSERT INTO products_workflows SELECT product_id, workflow_id, target FROM products, workflows;
"""
FILL = """
WITH made AS (
    INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, created_at)
    SELECT gen_random_uuid(), product_id, 'customer ' || n % 100, 'subscription ' || n,
           (ARRAY['active', 'active', 'provisioning', 'terminated', 'active'])[1 + n % 5], n % 40 <> 0,
           now() - n * interval '1 minute'
      FROM generate_series($1::int + 1, $2::int) n, products WHERE name = 'Port'
    RETURNING subscription_id
), blocks AS (
    INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)
    SELECT gen_random_uuid(), subscription_id, product_block_id, '{"vlan": 7, "name": "port"}'
      FROM made, product_blocks, generate_series(1, 2) WHERE name = 'PortBlock'
    RETURNING subscription_instance_id, subscription_id
)
INSERT INTO subscription_roots
SELECT subscription_id, 'ports', row_number() OVER (PARTITION BY subscription_id), subscription_instance_id FROM blocks
"""
USE = """
WITH hub AS (
    INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)
    SELECT $1, product_id, 'us', 'the node', 'active', true FROM products WHERE name = 'Node'
    RETURNING subscription_id
), block AS (
    INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id)
    SELECT gen_random_uuid(), subscription_id, product_block_id FROM hub, product_blocks WHERE name = 'NodeBlock'
    RETURNING subscription_instance_id
)
INSERT INTO subscription_instance_relations
SELECT own.subscription_instance_id, 'node', 0, block.subscription_instance_id
  FROM (SELECT DISTINCT ON (subscription_id) subscription_instance_id FROM subscription_instances LIMIT $2) own, block
"""


@asynccontextmanager
async def own_database(servers: Servers, pool_size: int = 2) -> AsyncIterator[Database]:
    """Provide a migrated database, dropped afterwards."""
    name = f"orchestrator_bench_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(servers.dsn())
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        database = Database(
            servers.database_url(name), pool_size=pool_size, connect_timeout=5, application_name="benchmark"
        )
        await database.open()
        await upgrade(database.engine, Path("there-is-none"))
        try:
            yield database
        finally:
            await database.close()
            await drop_database(connection, name)
    finally:
        await connection.close()


async def timed(database: Database, question: Question, repetitions: int) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds, in one transaction each, the connection's round trips included."""
    spans = []
    for _ in range(repetitions):
        async with database.transaction() as session:
            await session.connection()
            begin = time.perf_counter()
            await question(session)
            spans.append((time.perf_counter() - begin) * 1000)
    return statistics.median(spans), statistics.quantiles(spans, n=20)[-1]


async def plan_of(database: Database, question: Question) -> str:
    """Return the kinds of nodes in the plans of all its statements, scans with their tables."""
    sent: list[tuple[str, Any]] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", keep)
    async with database.transaction() as session:
        await question(session)
    event.remove(database.engine.sync_engine, "before_cursor_execute", keep)
    found: dict[str, None] = {}
    for statement, parameters in sent:
        plan = json.loads(await database.pool.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters))
        found |= dict.fromkeys(_nodes(plan[0]["Plan"]))
    return f"{len(sent)} statement(s): " + ", ".join(found)


def _nodes(node: Mapping[str, Any]) -> Iterator[str]:
    index = node.get("Index Name", node.get("Relation Name", ""))
    yield f"{node['Node Type']}{f' {index}' if index else ''}"
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def questions(middle: UUID) -> dict[str, Question]:
    """Return the questions; ``middle`` is a subscription in the middle of the lists."""
    page: dict[str, dict[str, Any]] = {
        "page of all": {},
        "page of active": {"statuses": ["active"]},
        "page of active and provisioning": {"statuses": ["active", "provisioning"]},
        "page of one product": {"product": "Port"},
        "page of one customer": {"customer": "customer 7"},
        "page out of sync": {"insync": False},
        "page of one product's active": {"product": "Port", "statuses": ["active"]},
        "page from the middle on": {"statuses": ["active"], "after": middle},
    }
    found: dict[str, Question] = {
        "workflows for the hub": lambda session: workflows_for(session, HUB),
        "workflows for another": lambda session: workflows_for(session, middle),
        "show the hub": lambda session: show(session, HUB),
    }
    for name, filters in page.items():
        found[name] = lambda session, filters=filters: list_subscriptions(session, limit=20, **filters)  # type: ignore[misc]
    return found


async def run(options: argparse.Namespace) -> None:
    """Ask everything in turn, with few and with many rows."""
    medians: dict[str, list[tuple[float, float]]] = {}
    plans: dict[str, str] = {}
    async with own_database(Servers.from_environment()) as database:
        await database.pool.execute(CATALOGUE)
        before = 0
        for size in SIZES:
            await database.pool.execute(FILL, before, size)
            if not before:
                await database.pool.execute(USE, HUB, options.users)
            before = size
            await database.pool.execute("VACUUM ANALYZE")
            middle = await database.pool.fetchval(
                "SELECT subscription_id FROM subscriptions ORDER BY created_at DESC LIMIT 1 OFFSET $1", size // 2
            )
            for name, question in questions(middle).items():
                await timed(database, question, 10)
                medians.setdefault(name, []).append(await timed(database, question, options.reps))
                plans[name] = await plan_of(database, question)
    print(f"the hub is used by {options.users}; milliseconds, medians (95 %) of {options.reps}; pages of 20\n")
    print(f"{'':34}" + "".join(f"{f'of {size:,}':>18}" for size in SIZES) + f"{'ratio':>8}")
    for name, figures in medians.items():
        cells = "".join(f"{f'{median:.2f} ({high:.2f})':>18}" for median, high in figures)
        print(f"{name:34}{cells}{figures[-1][0] / figures[0][0]:>8.2f}")
    print(f"\nplans with {SIZES[-1]:,}:")
    for name, plan in plans.items():
        print(f"\n{name}\n  {plan}")


def parser() -> argparse.ArgumentParser:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--users", type=int, default=1_000, help="subscriptions that use the one in question")
    found.add_argument("--reps", type=int, default=100, help="repetitions of each question (default 100)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"rules: {error}")
