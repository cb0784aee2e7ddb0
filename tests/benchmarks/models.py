"""What domain models cost: loading and saving subscriptions of 1, 10 and 100 blocks, beside the bare statements.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.models

In a database made for the run, with ``--others`` subscriptions around. "Bare" is the same statements with the same parameters and
nothing done with the answer; the ratio is what the models themselves cost. Saves are rolled back, so the wait for the disk is not
part of the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import PROCESS_ID
from orchestrator.domain import SubscriptionModel
from tests.benchmarks.rules import own_database
from tests.integration.model_bench import Bench, make_bench
from tests.servers import NoServersError, Servers
from tests.unit.models import FolderBlockInactive, FolderInactive

SIZES = (1, 10, 100)
BRANCHES = 9
"""Blocks below each block: a tree of 100 blocks is three deep."""

OTHERS = """
WITH made AS (
    INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)
    SELECT gen_random_uuid(), product_id, 'customer ' || n % 100, 'subscription ' || n, 'initial', true
      FROM generate_series(1, $1::int) n, products WHERE name = 'Folder'
    RETURNING subscription_id
), blocks AS (
    INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)
    SELECT gen_random_uuid(), subscription_id, product_block_id, '{"title": "other"}'
      FROM made, product_blocks, generate_series(1, 3) WHERE name = 'Folder'
    RETURNING subscription_instance_id, subscription_id
), roots AS (
    INSERT INTO subscription_roots
    SELECT subscription_id, 'top', row_number() OVER (PARTITION BY subscription_id), subscription_instance_id FROM blocks
)
INSERT INTO subscription_instance_relations
SELECT one, 'folders', 0, next
  FROM (SELECT subscription_instance_id AS one, lead(subscription_instance_id) OVER () AS next FROM blocks LIMIT 10000) pairs
 WHERE next IS NOT NULL
"""

Sent = tuple[str, tuple[Any, ...]]
Change = Callable[[FolderInactive], None]


@dataclass
class Figures:
    """One line of the table: milliseconds of each repetition, and the statements of one."""

    model: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def __str__(self) -> str:
        model, bare = statistics.median(self.model), statistics.median(self.bare)
        high = statistics.quantiles(self.model, n=20)[-1]
        ratio = f"{model / bare:>8.2f}" if self.sent else f"{'':>8}"
        return f"{len(self.sent):>12}{model:>12.2f}{high:>12.2f}{bare if self.sent else 0:>12.2f}{ratio}"


def tree(subscription: FolderInactive, size: int) -> list[FolderBlockInactive]:
    """Fill a new subscription with blocks."""
    blocks = [subscription.top]
    while len(blocks) < size:
        block = FolderBlockInactive.new(subscription.subscription_id, title=f"folder {len(blocks)}", words={"a", "b"})
        blocks[(len(blocks) - 1) // BRANCHES].folders.append(block)
        blocks.append(block)
    return blocks


def blocks_of(block: FolderBlockInactive) -> list[FolderBlockInactive]:
    """Return a block and all below it."""
    return [block, *(inner for one in block.folders for inner in blocks_of(one))]


def nothing(_: FolderInactive) -> None:
    """Leave it as it is."""


def one_value(subscription: FolderInactive) -> None:
    """Change the last block."""
    blocks_of(subscription.top)[-1].title = "changed"


def every_block(subscription: FolderInactive) -> None:
    """Change all blocks."""
    for block in blocks_of(subscription.top):
        block.title = "changed"


async def bare(session: AsyncSession, sent: list[Sent]) -> None:
    """Send the same again, and fetch what comes back."""
    connection = await session.connection()
    for statement, parameters in sent:
        result = await connection.exec_driver_sql(statement, parameters)
        if result.returns_rows:
            result.all()


async def rolled_back(bench: Bench, work: Callable[[AsyncSession], Awaitable[object]]) -> tuple[float, list[Sent]]:
    """Milliseconds of a piece of work in a transaction that is begun before and rolled back after, and what it has sent."""
    sent: list[Sent] = []

    def keep(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    async with AsyncSession(bench.database.engine) as session:
        session.info[PROCESS_ID] = bench.process_id
        await (await session.connection()).exec_driver_sql("SELECT 1")
        event.listen(bench.database.engine.sync_engine, "before_cursor_execute", keep)
        begin = time.perf_counter()
        await work(session)
        span = (time.perf_counter() - begin) * 1000
        event.remove(bench.database.engine.sync_engine, "before_cursor_execute", keep)
        await session.rollback()
    return span, sent


async def measure(bench: Bench, make: Callable[[], Callable[[AsyncSession], Awaitable[object]]], reps: int) -> Figures:
    """Model and bare statements in turn."""
    figures = Figures()
    for number in range(reps + 10):
        span, sent = await rolled_back(bench, make())
        figures.sent = sent
        other, _ = await rolled_back(bench, lambda session, sent=sent: bare(session, sent))  # type: ignore[misc]
        if number >= 10:  # the first fill caches: plans, pages, compiled validators
            figures.model.append(span)
            figures.bare.append(other)
    return figures


async def new(bench: Bench, size: int) -> FolderInactive:
    """Return a new subscription of that many blocks, not saved."""
    async with bench.session() as session:
        made = await FolderInactive.from_product_id(session, bench.products["Folder"], "customer")
    tree(made, size)
    return made


async def run(options: argparse.Namespace) -> None:
    """All sizes in turn."""
    lines: dict[str, Figures] = {}
    async with own_database(Servers.from_environment()) as database:
        bench = await make_bench(database)
        await database.pool.execute(OTHERS, options.others)
        await database.pool.execute("VACUUM ANALYZE")
        for size in SIZES:
            subscription = await new(bench, size)
            fresh = subscription.model_copy(deep=True)
            await bench.save(subscription)
            key = subscription.subscription_id

            def load(key: Any = key) -> Callable[[AsyncSession], Awaitable[object]]:
                return lambda session: SubscriptionModel.from_subscription(session, key)

            def save_new(fresh: FolderInactive = fresh) -> Callable[[AsyncSession], Awaitable[object]]:
                copy = renamed(fresh)
                return copy.save

            def saving(change: Change, saved: FolderInactive = subscription) -> Callable[..., Any]:
                def make() -> Callable[[AsyncSession], Awaitable[object]]:
                    copy = saved.model_copy(deep=True)
                    change(copy)
                    return copy.save

                return make

            lines[f"load, {size} blocks"] = await measure(bench, load, options.reps)
            lines[f"save new, {size} blocks"] = await measure(bench, save_new, options.reps)
            for change in (nothing, one_value, every_block):
                name = change.__name__.replace("_", " ")
                lines[f"save {name}, {size} blocks"] = await measure(bench, saving(change), options.reps)
    print(f"{options.others:,} other subscriptions; milliseconds, medians of {options.reps}\n")
    print(f"{'':28}{'statements':>12}{'model':>12}{'95 %':>12}{'bare':>12}{'ratio':>8}")
    for name, figures in lines.items():
        print(f"{name:28}{figures}")


def renamed(subscription: FolderInactive) -> FolderInactive:
    """Return a copy under other ids: a new subscription each time."""
    key = uuid4()
    copy = subscription.model_copy(deep=True)
    copy.__dict__["subscription_id"] = key
    for block in blocks_of(copy.top):
        block.__dict__ |= {"owner_subscription_id": key, "subscription_instance_id": uuid4()}
    return copy


def parser() -> argparse.ArgumentParser:
    """Read the command line and run."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--others", type=int, default=5_000, help="subscriptions around (default 5000)")
    found.add_argument("--reps", type=int, default=100, help="repetitions of each measurement (default 100)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"models: {error}")
