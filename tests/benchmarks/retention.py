"""What a clean-up of finished tasks costs: rows a second, what each batch reads, and what people notice of it.

    eval "$(scripts/services env)"
    .venv/bin/python -m tests.benchmarks.retention

In a database made for the run: ``--processes`` that have ended, each with a state of half a kilobyte and ``--entries`` log
entries; half of them tasks, of which one in fifty has expired, so 1 % of all. First those are deleted in batches of one size, in
which each statement is explained: the kinds of nodes, and the pages ("buffers") that it has touched, those included by which
PostgreSQL deletes what belongs to the rows. Then all tasks expire at once, and are deleted as by the step that ships, while a
person asks for lists and for one process, and starts processes. It ends with 1 when a statement read a table as a whole, when the
last batch touched more than three times the pages of the first, or when anything is left without its process.
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
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg

from orchestrator.db.lists.processes import page_processes
from orchestrator.db.lists.request import read_request
from orchestrator.db.processes.queries import read_process
from orchestrator.db.retention import Key, Rule, TaskBatch, bound_statements, delete_tasks, list_expired, read_time
from orchestrator.db.session import Database, Driver
from orchestrator.db.step_session import StepSession
from orchestrator.workflows.tasks.cleanup_tasks_log import Batches
from tests.benchmarks.rules import own_database
from tests.servers import NoServersError, Servers

FILL_AT_ONCE = 20_000
MOST = 3
"""How many times the pages of the first batch the last may touch."""

WORKFLOWS = (
    "INSERT INTO workflows (name, target, is_task) VALUES ('work', 'MODIFY', false), ('check', 'VALIDATE', true)"
)
PROCESSES = """
WITH made AS (
    INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence,
                           failures, lost, rewinds, state, started_by, actor, announced, started_at, updated_at)
    SELECT gen_random_uuid(), w.workflow_id, w.name, w.is_task, CASE WHEN n % 40 = 1 THEN 'aborted' ELSE 'completed' END,
           3, 'step ' || n % 7, false, 1, $3, 0, 0, 0, jsonb_build_object('text', repeat(md5(n::text), 15)),
           'user-' || n % 60, 'user', $3, now() - age * interval '1 s', now() - (age - 20) * interval '1 s'
      FROM (SELECT n, CASE WHEN n % 100 = 1 THEN 86400.0 * 4 + n ELSE 100.0 + n % 250000 END AS age
              FROM generate_series($1::int + 1, $2::int) n) numbers
      JOIN workflows w ON w.name = CASE WHEN n % 2 = 1 THEN 'check' ELSE 'work' END
    RETURNING process_id
), called AS (
    INSERT INTO callbacks (token_hash, process_id, position, step, status)
    SELECT uuid_send(process_id), process_id, 0, 'a', 'used' FROM made
)
INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at, finished_at)
SELECT process_id, n, 'step', 'step ' || n, n, 1, 'success', '{"key": "a value that a step has returned"}', 'user', now(), now()
  FROM made, generate_series(1, $3) n
"""
ORPHANS = """
SELECT (SELECT count(*) FROM process_steps s WHERE NOT EXISTS (SELECT FROM processes p WHERE p.process_id = s.process_id))
     + (SELECT count(*) FROM callbacks c WHERE NOT EXISTS (SELECT FROM processes p WHERE p.process_id = c.process_id))
"""
START = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor)
SELECT gen_random_uuid(), workflow_id, name, is_task, 'running', 0, 'a', false, 1, 1, 0, 0, 0, '{}', 'me', 'me'
  FROM workflows WHERE name = 'work'
"""
# So that what a deletion does by its foreign keys counts as well, of which EXPLAIN shows the time only.
DELETE_IN_FUNCTION = """
CREATE FUNCTION pg_temp.delete_in_function(ids uuid[]) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN DELETE FROM processes WHERE process_id = ANY(ids); END $$
"""


class Explained:
    """A connection that explains each statement as it sends it."""

    def __init__(self, connection: Driver) -> None:
        self._connection = connection
        self.pages = 0
        self.nodes: set[str] = set()

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Explain a question and ask it."""
        await self._explain(statement, *values)
        return list(await self._connection.fetch(statement, *values))

    async def execute(self, statement: str, *values: object) -> None:
        """Explain a deletion, and do it by a function: once."""
        plan = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *values))
        self.nodes |= set(_nodes(plan[0]["Plan"]))
        await self._explain("SELECT pg_temp.delete_in_function($1)", *values)

    async def _explain(self, statement: str, *values: object) -> None:
        text = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *values)
        plan = json.loads(text)[0]["Plan"]
        self.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        self.nodes |= set(_nodes(plan))


def _nodes(node: Mapping[str, Any]) -> Iterator[str]:
    name = node.get("Index Name") or node.get("Relation Name") or ""
    yield f"{node['Node Type']} {name}".strip()
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


async def fill(database: Database, number: int, entries: int) -> None:
    """Add the processes."""
    connection = await database.connect("filling")
    await connection.execute("SET statement_timeout = 0; SET synchronous_commit = off")
    await connection.execute(WORKFLOWS)
    for begin in range(0, number, FILL_AT_ONCE):
        await connection.execute(PROCESSES, begin, min(begin + FILL_AT_ONCE, number), entries)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def delete_explained(database: Database, rule: Rule, size: int) -> tuple[list[int], set[str], int]:
    """Delete what has expired in batches of one size; return the pages of each, the kinds of nodes, and how many were deleted."""
    pages: list[int] = []
    nodes: set[str] = set()
    deleted = 0
    connection = await database.connect("explaining")
    await connection.execute(DELETE_IN_FUNCTION)
    before = await read_time(connection) - timedelta(seconds=rule.seconds)
    done = TaskBatch(is_last=False)
    while not done.is_last:
        async with connection.transaction():
            await bound_statements(connection, 5)
            explained = Explained(connection)
            done = await delete_tasks(cast("Driver", explained), size, rule=rule, before=before, after=done.end)
        deleted += done.deleted
        nodes |= explained.nodes
        if done.deleted == size:
            pages.append(explained.pages)
    await connection.close()
    return pages, nodes, deleted


Question = Callable[[], Awaitable[object]]


class Person:
    """Asks one question after the other, and notes how long each took."""

    def __init__(self, database: Database, process_id: UUID) -> None:
        newest = read_request(rows="0,9")
        failed = read_request(rows="0,9", filters=["last_status,failed"])

        async def ask(question: Callable[[Any], Awaitable[object]]) -> object:
            async with database.transaction() as session:
                return await question(session)

        self._questions: dict[str, Question] = {
            "a page of the newest": lambda: ask(lambda session: page_processes(session, newest)),
            "a page of a status": lambda: ask(lambda session: page_processes(session, failed)),
            "one process": lambda: ask(lambda session: read_process(session, process_id)),
            "a start": lambda: database.pool.execute(START),
        }

    async def ask_until(self, enough: Callable[[], bool]) -> dict[str, list[float]]:
        """Ask until it is enough; return milliseconds by question."""
        found: dict[str, list[float]] = {name: [] for name in self._questions}
        while not enough() or not all(len(times) > 1 for times in found.values()):
            for name, question in self._questions.items():
                begin = time.perf_counter()
                await question()
                found[name].append((time.perf_counter() - begin) * 1000)
            await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def step_session(database: Database) -> AsyncIterator[StepSession]:
    """Provide what a step gets as ``session``."""
    session = StepSession(database.engine)
    try:
        yield session
    finally:
        await session.discard()


async def delete_all(database: Database, rule: Rule) -> tuple[int, int, float]:
    """Delete what has expired as the step that ships does; return how many, in how many batches, and the seconds."""
    batches_run = deleted = 0
    begin = time.perf_counter()
    async with step_session(database) as session:
        batches = Batches(session)
        async with batches.transaction() as driver:
            before = await read_time(driver) - timedelta(seconds=rule.seconds)
        done = TaskBatch(is_last=False)
        while not done.is_last:
            end: Key = done.end

            async def batch(driver: Driver, size: int, end: Key = end) -> TaskBatch:
                return await delete_tasks(driver, size, rule=rule, before=before, after=end)

            done = await batches.run(batch)
            deleted += done.deleted
            batches_run += 1
    return deleted, batches_run, time.perf_counter() - begin


async def run(options: argparse.Namespace) -> int:
    """Fill, delete, print, judge."""
    async with own_database(Servers.from_environment()) as database:
        begin = time.perf_counter()
        await fill(database, options.processes, options.entries)
        print(
            f"{options.processes:,} processes of {options.entries} entries, filled in {time.perf_counter() - begin:.0f} s"
        )
        row = await database.pool.fetchrow("SELECT workflow_id FROM workflows WHERE name = 'check'")
        kept = await database.pool.fetchval("SELECT process_id FROM processes WHERE workflow = 'work' LIMIT 1")
        assert row is not None
        rule = Rule(row["workflow_id"], "check", 86_400.0 * 3)

        pages, nodes, deleted = await delete_explained(database, rule, options.batch)
        print(f"\n{deleted:,} expired, in batches of {options.batch}")
        print(
            f"pages that a batch touched: first {pages[0]:,}, last {pages[-1]:,}; last/first {pages[-1] / pages[0]:.2f};"
        )
        print(f"median {statistics.median(pages):,.0f}, most {max(pages):,}")
        print("nodes: " + ", ".join(sorted(nodes)))

        person = Person(database, kept)
        until = time.perf_counter() + options.idle
        idle = await person.ask_until(lambda: time.perf_counter() > until)
        everything = Rule(rule.workflow_id, "check", 0.0)
        clean_up = asyncio.create_task(delete_all(database, everything))
        busy = await person.ask_until(clean_up.done)
        number, batches, seconds = await clean_up
        print(
            f"\nall {number:,} tasks with {number * options.entries:,} entries in {batches:,} batches: {seconds:.1f} s,"
        )
        print(
            f"{number / seconds:,.0f} tasks a second, {number * (options.entries + 2) / seconds:,.0f} rows a second\n"
        )
        print(f"{'milliseconds: median (95 %)':32}{'alone':>18}{'meanwhile':>18}{'ratio':>8}")
        for name, alone in idle.items():
            cells = [
                f"{statistics.median(one):.1f} ({statistics.quantiles(one, n=20)[-1]:.1f})"
                for one in (alone, busy[name])
            ]
            ratio = statistics.median(busy[name]) / statistics.median(alone)
            print(f"{name:32}{cells[0]:>18}{cells[1]:>18}{ratio:>8.2f}")

        begin = time.perf_counter()
        again, _, seconds = await delete_all(database, everything)
        print(f"\nthe next clean-up, before any vacuum: {again} tasks in {seconds * 1000:.0f} ms")
        begin = time.perf_counter()
        await list_expired(database.pool, [rule])
        print(f"the oldest that has expired: {(time.perf_counter() - begin) * 1000:.1f} ms")
        connection = await database.connect("counting")
        await connection.execute("SET statement_timeout = 0")
        orphans = await connection.fetchval(ORPHANS)
        # Ends an autovacuum of it, which would hold up the end of the database.
        await connection.execute("TRUNCATE processes CASCADE")
        await connection.close()
        print(f"log entries and callbacks without their process: {orphans}")
        scans = [one for one in nodes if one.startswith("Seq Scan")]
        return 1 if scans or orphans or pages[-1] > MOST * pages[0] else 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--processes", type=int, default=1_000_000, help="in all (default 1,000,000)")
    found.add_argument("--batch", type=int, default=500, help="tasks of a batch that is explained (default 500)")
    found.add_argument("--entries", type=int, default=5, help="log entries of each (default 5)")
    found.add_argument("--idle", type=float, default=20, help="seconds in which a person asks alone (default 20)")
    return found


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(run(parser().parse_args())))
    except NoServersError as error:
        sys.exit(f"retention: {error}")
