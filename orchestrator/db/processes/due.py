"""Find processes that are due, by the database's clock and in batches; several coordinators may do so at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import Result, text
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.processes.outbox import MOST_ENTRIES
from orchestrator.db.processes.rows import COLUMNS, COLUMNS_BUT_STATE, build_process, build_process_with
from orchestrator.engine.process import Process

MAX_INTERVAL = 600.0
"""The most seconds between two publications of the same command."""

REFUSED_INTERVAL = 60.0
"""The same, if the queue has refused the command: it may soon have room."""

NOT_PUBLISHED = -1
"""``dispatches`` of a process that was started by a step, until its first command is published. No event of it is, either."""

# Processes that a program may not move stay due for others. If they were postponed, two programs might postpone them by turns.
_IS_ITS_OWN = "(plan = ANY(:plans) OR workflow = ANY(:current))"
_SINCE = "GREATEST(updated_at, published_at)"
_FIND = text(
    f"""
    (SELECT process_id, workflow, step, plan, status, updated_at AS since, false AS is_dropped, false AS is_new
       FROM processes
      WHERE wake_at <= now() AND {_IS_ITS_OWN} ORDER BY wake_at LIMIT :at_rest)
    UNION ALL
    (SELECT process_id, workflow, step, plan, status, {_SINCE},
            dispatches < 0, dispatches = {NOT_PUBLISHED} AND announced = 0
       FROM processes
      WHERE status = 'running' AND claimed_by IS NULL AND due_at <= now() AND {_IS_ITS_OWN} LIMIT :running)
    """  # noqa: S608 - built from constants
)

# A process is taken by raising due_at, so that no other coordinator takes it, too. Publications are recorded only afterwards,
# because the interval must not grow for a command that was not published.
_TAKE_LOST = text(
    f"""
    WITH taken AS (
        UPDATE processes SET dispatches = abs(dispatches) + 1, due_at = now() + :lease * interval '1 second'
         WHERE process_id IN (SELECT process_id FROM processes
                               WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL AND due_at <= now()
                               ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING process_id
    )
    SELECT {COLUMNS_BUT_STATE}, w.target, p.is_task, now() AS at, p.announced,
           CASE WHEN p.announced < p.sequence THEN
               (SELECT jsonb_agg(jsonb_build_object(
                           'sequence', s.sequence, 'kind', s.kind, 'name', s.name, 'status', s.status, 'attempt', s.attempt,
                           'author', s.author, 'position', s.position, 'at', s.finished_at) ORDER BY s.sequence)::text
                  FROM (SELECT * FROM process_steps s WHERE s.process_id = p.process_id AND s.sequence > p.announced
                         ORDER BY s.sequence LIMIT {MOST_ENTRIES}) AS s) END AS entries
      FROM taken JOIN processes p USING (process_id) JOIN workflows w USING (workflow_id)
    """  # noqa: S608 - built from constants
)
# The interval doubles with each publication and is spread by a fifth either way; otherwise a thousand commands that were lost
# together would come back together. A process that was claimed meanwhile has another attempt.
_MARK_DISPATCHED = text(
    """
    UPDATE processes AS p
       SET published_at = COALESCE(d.published_at, p.published_at),
           due_at = now() + LEAST(:first * power(2, LEAST(p.dispatches - 1, 20)),
                                  CASE WHEN d.published_at IS NULL THEN CAST(:refused AS float8) ELSE CAST(:most AS float8) END)
                            * (0.8 + 0.4 * random()) * interval '1 second'
      FROM (SELECT p.process_id, w.published_at
              FROM processes p JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:times AS timestamptz[]))
                                    AS w(process_id, attempt, published_at) USING (process_id)
             WHERE p.attempt = w.attempt AND p.status = 'running' AND p.claimed_by IS NULL AND p.dispatches > 0
             ORDER BY p.process_id FOR NO KEY UPDATE OF p SKIP LOCKED) AS d
     WHERE p.process_id = d.process_id
    """
)
_GIVE_BACK = text(
    """
    UPDATE processes SET dispatches = GREATEST(dispatches - 1, 0), due_at = now() + :seconds * interval '1 second'
     WHERE process_id IN (SELECT process_id FROM processes
                           WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL AND dispatches > 0
                           ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    """
)
# Only postponed processes: neither those that are due soon anyway nor those whose commands were published again a while ago.
_BRING_FORWARD = text(
    f"""
    UPDATE processes SET due_at = now()
     WHERE process_id IN (
               SELECT process_id FROM processes
                WHERE status = 'running' AND claimed_by IS NULL AND dispatches >= 0
                  AND due_at > now() + :lease * interval '1 second'
                  AND {_SINCE} < :before
                  AND due_at > {_SINCE} + 1.2 * LEAST(:first * power(2, LEAST(dispatches, 20)), :most) * interval '1 second'
                  AND (workflow, step) IN (SELECT * FROM unnest(CAST(:workflows AS text[]), CAST(:steps AS text[])))
                  AND process_id <> ALL(:held)
                ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    """  # noqa: S608 - built from constants
)


# Only due_at: if this program ends before it has published them, they are still known to be in no queue.
_TAKE_NEW = text(
    f"""
    WITH taken AS (
        UPDATE processes SET due_at = now() + :lease * interval '1 second'
         WHERE process_id IN (SELECT process_id FROM processes
                               WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL AND due_at <= now()
                                 AND dispatches = {NOT_PUBLISHED} AND announced = 0
                               ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING process_id
    )
    SELECT {COLUMNS_BUT_STATE}, w.target, p.is_task, now() AS at, 0 AS announced,
           (SELECT jsonb_agg(jsonb_build_object(
                       'sequence', s.sequence, 'kind', s.kind, 'name', s.name, 'status', s.status, 'attempt', s.attempt,
                       'author', s.author, 'position', s.position, 'at', s.finished_at) ORDER BY s.sequence)::text
              FROM process_steps s WHERE s.process_id = p.process_id) AS entries
      FROM taken JOIN processes p USING (process_id) JOIN workflows w USING (workflow_id)
    """  # noqa: S608 - built from constants
)
_MARK_PUBLISHED = text(
    f"""
    UPDATE processes
       SET dispatches = 1, published_at = :at, due_at = now() + :first * (0.8 + 0.4 * random()) * interval '1 second'
     WHERE process_id IN (SELECT process_id FROM processes
                           WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL
                             AND dispatches = {NOT_PUBLISHED}
                           ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    """  # noqa: S608 - built from constants
)


_POSTPONE = text(
    """
    UPDATE processes SET due_at = now() + :seconds * (0.8 + 0.4 * random()) * interval '1 second'
     WHERE process_id IN (SELECT process_id FROM processes
                           WHERE process_id = ANY(:ids) AND status = 'running' AND claimed_by IS NULL
                           ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
    """
)


_LOOK_LATER = text(
    """
    UPDATE processes
       SET due_at = CASE WHEN status = 'running' THEN now() + :seconds * interval '1 second' ELSE due_at END,
           wake_at = CASE WHEN status <> 'running' THEN now() + :seconds * interval '1 second' END
     WHERE process_id = :process_id AND claimed_by IS NULL
    """
)


_LOCK_SCHEDULED = text(
    f"""
    SELECT {COLUMNS}, p.due_at, p.claimed_by IS NOT NULL AS is_claimed, p.dispatches
      FROM processes AS p WHERE p.process_id = :process_id FOR NO KEY UPDATE
    """  # noqa: S608 - built from constants
)
_MAKE_DUE = text("UPDATE processes SET due_at = now(), wake_at = now() WHERE process_id = :process_id")
_MAKE_RUNNING_DUE = text(
    f"""
    UPDATE processes
       SET due_at = now(), dispatches = CASE WHEN dispatches = {NOT_PUBLISHED} THEN dispatches ELSE 0 END
     WHERE status = 'running' AND claimed_by IS NULL
    """  # noqa: S608 - built from constants
)
# A row that another transaction has locked is being handled.
_WAKE_WAITING = text(
    """
    WITH woken AS (
        UPDATE processes SET due_at = now(), wake_at = now()
         WHERE process_id IN (SELECT process_id FROM processes
                               WHERE status = 'waiting' AND (wake_at > now()) IS NOT FALSE
                               ORDER BY process_id FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING workflow
    )
    SELECT workflow, count(*)::int AS number FROM woken GROUP BY workflow ORDER BY workflow
    """
)
_SCHEDULE = text(
    """
    UPDATE processes
       SET due_at = CAST(:due_at AS timestamptz), wake_at = CAST(:due_at AS timestamptz)
     WHERE process_id = :process_id
    """
)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """When a process is due, whether a consumer runs its step, and how often its command was published again."""

    process: Process
    due_at: datetime | None
    is_claimed: bool
    dispatches: int


@dataclass(frozen=True, slots=True)
class Due:
    """A process that the reconciler must handle.

    Args:
        since: when its command was last published, or it last moved.
        is_dropped: whether the command of its step is known to be in no queue.
        is_new: whether nothing about it has been published, because a step has started it.
    """

    process_id: UUID
    workflow: str
    step: str | None
    plan: str | None
    status: str
    since: datetime
    is_dropped: bool
    is_new: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """A process whose command this program publishes now.

    Args:
        process: without its state, which a command does not need: hundreds are taken at once.
        at: the time at which it was taken.
        announced: up to which log entry its events are confirmed.
        entries: the log after that, as the events need it.
    """

    process: Process
    target: str
    is_task: bool
    at: datetime
    announced: int
    entries: Sequence[Mapping[str, Any]]


async def lock_scheduled(session: AsyncSession, process_id: UUID) -> Scheduled | None:
    """Lock and return a process with its schedule; ``None`` when there is no such process."""
    row = (await session.execute(_LOCK_SCHEDULED, {"process_id": process_id})).mappings().one_or_none()
    if row is None:
        return None
    return Scheduled(build_process(row), row["due_at"], row["is_claimed"], row["dispatches"])


async def find_due(
    session: AsyncSession, plans: Sequence[str], current: Sequence[str], *, at_rest: int, running: int
) -> list[Due]:
    """Return processes that are due, without taking them.

    Args:
        plans: the fingerprints of the program's plans.
        current: the workflows whose registered plan the program has: it may move all their processes.
        at_rest, running: the most of each to return.
    """
    values = {"at_rest": at_rest, "running": running, "plans": list(plans), "current": list(current)}
    return [Due(*row) for row in await session.execute(_FIND, values)]


async def take_lost(session: AsyncSession, ids: Sequence[UUID], lease: float) -> list[Taken]:
    """Take and return those of these running processes that are still due, whose commands must be published again.

    For ``lease`` seconds no other coordinator takes them.
    """
    return _read_taken(await session.execute(_TAKE_LOST, {"ids": list(ids), "lease": lease}))


async def mark_dispatched(
    session: AsyncSession, published: Mapping[UUID, tuple[int, datetime | None]], first: float
) -> None:
    """Record which commands of taken processes were published, so that each is due after a longer interval than before.

    Args:
        published: process → its attempt and when it was taken; no time when its queue has refused the command.
        first: seconds after the first publication.
    """
    values = {
        "ids": list(published),
        "attempts": [attempt for attempt, _ in published.values()],
        "times": [at for _, at in published.values()],
        "first": first,
        "most": MAX_INTERVAL,
        "refused": REFUSED_INTERVAL,
    }
    await session.execute(_MARK_DISPATCHED, values)


async def give_back(session: AsyncSession, ids: Sequence[UUID], seconds: float) -> None:
    """Make taken processes due again after so many seconds, because nothing was published for them."""
    await session.execute(_GIVE_BACK, {"ids": list(ids), "seconds": seconds})


async def bring_forward(
    session: AsyncSession,
    steps: Iterable[tuple[str, str | None]],
    before: datetime,
    held: Iterable[UUID],
    *,
    first: float,
    lease: float,
) -> None:
    """Make postponed processes due whose commands were published before a time and are held by no consumer.

    Args:
        steps: their workflows and steps.
        first: as for :func:`mark_dispatched`.
        lease: processes that are due within so many seconds are left alone.
    """
    names = [(workflow, step) for workflow, step in steps if step is not None]
    values = {
        "workflows": [workflow for workflow, _ in names],
        "steps": [step for _, step in names],
        "before": before,
        "held": list(held),
        "first": first,
        "most": MAX_INTERVAL,
        "lease": lease,
    }
    await session.execute(_BRING_FORWARD, values)


async def take_new(session: AsyncSession, ids: Sequence[UUID], lease: float) -> list[Taken]:
    """Take those of these processes that nothing was published for yet; for ``lease`` seconds no other coordinator takes them."""
    return _read_taken(await session.execute(_TAKE_NEW, {"ids": list(ids), "lease": lease}))


async def mark_published(session: AsyncSession, ids: Sequence[UUID], at: datetime, first: float) -> None:
    """Record that the first commands of these processes are in their queues, unless they were claimed meanwhile.

    Args:
        at: when they were taken.
        first: seconds until the reconciler checks whether they were lost.
    """
    await session.execute(_MARK_PUBLISHED, {"ids": list(ids), "at": at, "first": first})


async def postpone(session: AsyncSession, ids: Sequence[UUID], seconds: float) -> None:
    """Postpone these running processes, because their commands wait in a queue."""
    if ids:
        await session.execute(_POSTPONE, {"ids": list(ids), "seconds": seconds})


async def look_later(session: AsyncSession, process_id: UUID, seconds: float) -> None:
    """Postpone a process that this program cannot handle now."""
    await session.execute(_LOOK_LATER, {"process_id": process_id, "seconds": seconds})


async def make_due(session: AsyncSession, process_id: UUID) -> None:
    """Make a process due at once."""
    await session.execute(_MAKE_DUE, {"process_id": process_id})


async def make_running_due(session: AsyncSession) -> None:
    """Make every running process due whose step is not claimed, as if its command had not been published yet."""
    await session.execute(_MAKE_RUNNING_DUE)


async def schedule(session: AsyncSession, process_id: UUID, due_at: datetime | None) -> None:
    """Set when a process that waits for a callback is due."""
    await session.execute(_SCHEDULE, {"process_id": process_id, "due_at": due_at})


async def wake_waiting(session: AsyncSession) -> dict[str, int]:
    """Make all processes due that wait for an automatic retry; return how many of each workflow."""
    rows = await session.execute(_WAKE_WAITING)
    return {row.workflow: row.number for row in rows}


def _read_taken(rows: Result[Any]) -> list[Taken]:
    return [
        Taken(
            build_process_with(row, {}, {}),
            row["target"],
            row["is_task"],
            row["at"],
            row["announced"],
            [] if row["entries"] is None else from_json(row["entries"]),
        )
        for row in rows.mappings()
    ]
