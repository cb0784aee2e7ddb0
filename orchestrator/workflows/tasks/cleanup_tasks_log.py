"""The task that deletes finished tasks and other records that have expired.

Each batch is a transaction of its own, beside that of the step: a clean-up may have millions of rows to delete, and in one
transaction it would hold their locks, and hold up PostgreSQL's own clean-up, until the end, and lose everything by an error. To
delete what has expired is harmless however often it is begun, so nothing of it must be part of the step's commit. (ADR 0048)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.retention import (
    LONG_AGO,
    RecordBatch,
    Rule,
    TaskBatch,
    bound_statements,
    count_expired,
    delete_records,
    delete_tasks,
    list_expired,
    list_stored_workflows,
    read_time,
)
from orchestrator.db.session import Driver, get_driver
from orchestrator.db.step_session import transaction_beside
from orchestrator.errors import ProcessFailureError
from orchestrator.services.retention import RECORDS, find_rules
from orchestrator.settings import load_settings
from orchestrator.text import format_message, format_span
from orchestrator.types import JSON
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import task

FIRST_SIZE, LARGEST_SIZE = 100, 2_000
"""Rows of a batch: it grows while batches are quick, and shrinks when they are slow or the server cancels one."""

QUICK, SLOW = 0.1, 0.4
"""Seconds of a batch, for which it holds its rows' locks: people who change one of these must not notice."""

STATEMENT_TIMEOUT = 5.0
"""Seconds that a statement of a batch may take; one that takes longer is cancelled, and tried again with fewer rows."""

MAX_REFUSALS = 3
"""How often in a row the server may cancel the smallest batch before the step fails."""

REST = 0.25
"""Of the time that a batch has taken, how much the server rests before the next: others come first."""

COUNTED = 100_000
"""Expired tasks of a workflow that are counted when a clean-up fails."""

ONE_DAY = timedelta(days=1)

_ADVICE = (
    "a retry goes on with what is left: look for who holds locks, and whether the role's statement_timeout or lock_timeout is too"
    " short for a single row"
)
_CANCELLED = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)

B = TypeVar("B")


class Batches:
    """Runs batches, each in a transaction of its own on a connection of the step's pool, as large as the server can bear."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._refusals = 0
        self.size = FIRST_SIZE

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Driver]:
        """Open a transaction that commits at the end of the block, with bounds for its statements."""
        async with transaction_beside(self._session) as own:
            driver = await get_driver(own)
            await bound_statements(driver, STATEMENT_TIMEOUT)
            yield driver

    async def run(self, batch: Callable[[Driver, int], Awaitable[B]]) -> B:
        """Run a batch until the server lets it through, with fewer rows each time.

        Raises:
            asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError: not even a single row.
        """
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                async with self.transaction() as driver:
                    done = await batch(driver, self.size)
            except _CANCELLED:
                self._refusals = self._refusals + 1 if self.size == 1 else 0
                if self._refusals >= MAX_REFUSALS:
                    raise
                self.size = max(self.size // 4, 1)
                await asyncio.sleep(REST)
                continue
            self._refusals = 0
            took = clock() - begun
            if took < QUICK:
                self.size = min(self.size * 2, LARGEST_SIZE)
            elif took > SLOW:
                self.size = max(self.size // 2, 1)
            await asyncio.sleep(took * REST)
            return done


@step("Delete expired tasks", timeout=ONE_DAY)
async def delete_expired_tasks(session: AsyncSession) -> dict[str, JSON]:
    """Delete the finished tasks of all workflows whose time is over, and return how many of each."""
    batches = Batches(session)
    async with batches.transaction() as driver:
        found = find_rules(await list_stored_workflows(driver), load_settings().task_log_retention_days)
        # What ends later is the next clean-up's, so that this one comes to an end.
        now = await read_time(driver)
    deleted: Counter[str] = Counter()
    left: Counter[str] = Counter()
    kept = 0
    try:
        for rule in found.rules:
            before = _before(now, rule.seconds)
            done = TaskBatch(is_last=False)
            while not done.is_last:
                done = await batches.run(partial(delete_tasks, rule=rule, before=before, after=done.end))
                deleted[rule.workflow] += done.deleted
                left.update(done.left)
                kept += done.kept
    except _CANCELLED as error:
        raise await _explain(batches, found.rules, deleted, error) from error
    return {
        "deleted_tasks": deleted.total(),
        "deleted_by_workflow": {name: number for name, number in deleted.items() if number},
        "kept_tasks": kept,
        "left_tasks": dict(left),
        "workflows_without_code": list(found.unknown),
    }


@step("Delete expired records", timeout=ONE_DAY)
async def delete_expired_records(session: AsyncSession) -> dict[str, JSON]:
    """Delete records of other kinds whose time is over, and return how many of each."""
    batches = Batches(session)
    async with batches.transaction() as driver:
        now = await read_time(driver)
    deleted: Counter[str] = Counter()
    try:
        for kind in RECORDS:
            before = _before(now, kind.seconds)
            done = RecordBatch(is_last=False, deleted=0, newest=LONG_AGO)
            while not done.is_last:
                done = await batches.run(partial(delete_records, kind=kind, before=before, after=done.newest))
                deleted[kind.table] += done.deleted
    except _CANCELLED as error:
        raise ProcessFailureError(f"{_describe(error)}; deleted so far: {dict(deleted)}; {_ADVICE}") from error
    return {"deleted_records": dict(deleted)}


@task("Delete finished tasks and other records that have expired")
def task_clean_up_tasks() -> StepList:
    """Delete tasks that have ended, when their time is over, and then records of other kinds."""
    return begin >> delete_expired_tasks >> delete_expired_records


def _before(now: datetime, seconds: float) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


async def _explain(
    batches: Batches, rules: Sequence[Rule], deleted: Counter[str], error: Exception
) -> ProcessFailureError:
    """Return the error that says what has stopped the clean-up, and what is left of its work."""
    begin = f"{_describe(error)}; {deleted.total()} tasks were deleted"
    try:
        async with batches.transaction() as driver:
            expired = await list_expired(driver, rules)
            backlog = await count_expired(driver, rules, COUNTED)
    except _CANCELLED:
        return ProcessFailureError(
            f"{begin}, and what is left could not be counted; {_ADVICE}", {"deleted": deleted.total()}
        )
    oldest = max((one.expired_for for one in expired), default=0.0)
    return ProcessFailureError(
        f"{begin}, and {backlog} that have expired are left, the oldest for {format_span(oldest)}; {_ADVICE}",
        {"deleted": deleted.total(), "left": backlog, "oldest_expired_for": round(oldest)},
    )


def _describe(error: Exception) -> str:
    return f"PostgreSQL has cancelled a batch of a single row {MAX_REFUSALS} times: {format_message(error)}"
