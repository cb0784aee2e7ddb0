"""When a claim is presumed lost: by its age, by the consumer's silence, and by the limits in the consumer's own row."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from consumers import heartbeat as heartbeats
from consumers.heartbeat import Heartbeat
from orchestrator.db.consumers import record_heartbeat, remove_silent_consumers
from orchestrator.db.processes.claims import lock_lost_claims
from orchestrator.db.session import Database, Driver
from orchestrator.db.status import list_consumers
from orchestrator.registry import Abilities
from orchestrator.watchdog import LoopWatch

PROCESS = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor, claimed_by, claimed_at)
VALUES (:process, :workflow, 'some', false, 'running', 0, true, 1, 1, 0, 0, 0, '{}', 'me', 'me', :consumer,
        now() - :claimed * interval '1 second')
"""
CONSUMER = """
INSERT INTO consumers (consumer_id, name, queues, concurrency, seen_at, heartbeat_interval, presumed_dead_after,
                       responsive_at, blocked_by)
VALUES (:consumer, 'vm:1', '{default}', 5, now() - :silent * interval '1 second', 1, :limit,
        now() - (CAST(:silent AS float8) + :blocked) * interval '1 second', CAST(:facts AS jsonb))
"""
LONG = 3600.0


async def add_consumer(
    session: AsyncSession,
    *,
    silent: float,
    limit: float,
    consumer: UUID | None = None,
    blocked: float = 0,
    facts: str | None = None,
) -> UUID:
    """Insert a consumer's row. The database's ``now()`` stands still in a transaction, so that no limit depends on speed."""
    consumer = consumer or uuid4()
    values = {"consumer": consumer, "silent": silent, "limit": limit, "blocked": blocked, "facts": facts}
    await session.execute(text(CONSUMER), values)
    return consumer


async def add_claim(session: AsyncSession, *, claimed: float) -> UUID:
    """Insert a process whose step a consumer has claimed; return the consumer's id."""
    workflow = await session.scalar(
        text("INSERT INTO workflows (name, target) VALUES ('some', 'SYSTEM') RETURNING workflow_id")
    )
    consumer = uuid4()
    values = {"process": uuid4(), "workflow": workflow, "consumer": consumer, "claimed": claimed}
    await session.execute(text(PROCESS), values)
    return consumer


async def find_lost(
    database: Database, *, claimed: float, silent: float | None, limit: float = 10, reads_for: float = LONG
) -> list[UUID]:
    """Return what is lost of one claim, by its age and its consumer's silence; ``None`` for a consumer without a row."""
    async with database.transaction() as session:
        consumer = await add_claim(session, claimed=claimed)
        if silent is not None:
            await add_consumer(session, silent=silent, limit=limit, consumer=consumer)
        found = await lock_lost_claims(session, reads_for=reads_for, presumed_dead_after=10, limit=100)
    return [claim.process.process_id for claim in found]


@pytest.mark.parametrize(
    ("claimed", "silent", "limit", "lost"),
    [
        (0, 60, 10, False),  # it was frozen, goes on, and has claimed before its next heartbeat
        (9, 60, 10, False),
        (60, 9, 10, False),
        (11, 11, 10, True),
        (60, 60, 10, True),
        (20, 20, 30, False),  # by its own settings it may be silent for longer than the coordinator would wait
        (3, 3, 2, True),
        (5, None, 10, False),  # whoever has no row may have one with its next heartbeat
        (11, None, 10, True),
    ],
)
async def test_a_claim_is_lost_when_it_is_old_and_its_consumer_silent(
    database: Database, claimed: float, silent: float | None, limit: float, lost: bool
) -> None:
    assert bool(await find_lost(database, claimed=claimed, silent=silent, limit=limit)) is lost


@pytest.mark.parametrize(("reads_for", "lost"), [(29, False), (30, True)])
async def test_after_an_outage_a_consumer_gets_the_time_that_it_has_set_itself(
    database: Database, reads_for: float, lost: bool
) -> None:
    """Nobody could beat; the coordinator's own limit would be over after ten seconds."""
    assert bool(await find_lost(database, claimed=60, silent=60, limit=30, reads_for=reads_for)) is lost


async def test_status_judges_a_consumer_by_its_own_limit(database: Database) -> None:
    async with database.transaction() as session:
        for limit in (LONG, 3 * LONG):
            await add_consumer(session, silent=2 * LONG, limit=limit)
    async with database.pool.acquire() as connection:
        found = await list_consumers(connection)
    assert {one.presumed_dead_after: one.alive for one in found} == {LONG: False, 3 * LONG: True}


async def test_a_patient_consumer_is_not_forgotten_before_its_time(database: Database) -> None:
    async with database.transaction() as session:
        patient = await add_consumer(session, silent=2 * LONG, limit=3 * LONG)
        await add_consumer(session, silent=2 * LONG, limit=10)
        await remove_silent_consumers(session, LONG)
    assert await database.pool.fetchval("SELECT array_agg(consumer_id) FROM consumers") == [patient]


def make_heartbeat(database: Database, presumed_dead_after: float) -> Heartbeat:
    watch = LoopWatch(asyncio.get_running_loop())
    return Heartbeat(database, ["default"], 5, Abilities(), watch, interval=2, presumed_dead_after=presumed_dead_after)


async def beat_once(heartbeat: Heartbeat) -> None:
    """Run a heartbeat until it has beaten, and stop it."""
    beaten = asyncio.Event()

    async def on_beat(*_: object) -> None:
        beaten.set()

    beating = asyncio.create_task(heartbeat.run(on_beat))
    async with asyncio.timeout(LONG):
        await beaten.wait()
        await heartbeat.stop()
        await beating


@pytest.mark.parametrize(
    ("gap", "said"),
    [(6, None), (7, "heartbeat was late"), (11, "heartbeat was late: others may have given our steps away")],
)
async def test_a_consumer_that_beats_late_says_so(
    database: Database, monkeypatch: pytest.MonkeyPatch, gap: float, said: str | None
) -> None:
    heartbeat = make_heartbeat(database, presumed_dead_after=10)
    now = await heartbeat.register()

    async def beat(*_: object) -> object:
        return now + timedelta(seconds=gap)

    monkeypatch.setattr(heartbeats, "record_heartbeat", beat)
    with capture_logs() as log:
        await heartbeat.register()
    assert [one["event"] for one in log] == ([] if said is None else [said])


async def test_after_a_beat_that_has_failed_the_next_one_comes_soon(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for which it was waited is gone; a whole interval more would use up what is left of the limit."""
    heartbeat = make_heartbeat(database, presumed_dead_after=10)
    await heartbeat.register()
    connect, pauses, tries = database.connect, list[float](), 0

    async def fail_twice() -> Driver:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise TimeoutError("no answer within 3 s")
        return await connect()

    async def note(seconds: float, stopping: asyncio.Event) -> bool:
        pauses.append(seconds)
        if len(pauses) > 3:
            await stopping.wait()
        return stopping.is_set()

    monkeypatch.setattr(database, "connect", fail_twice)
    monkeypatch.setattr(heartbeats, "wait_or_stop", note)
    await beat_once(heartbeat)
    assert pauses[:3] == [2, 0.25, 0.25]


async def test_a_beat_does_not_wait_for_the_disk(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = make_heartbeat(database, presumed_dead_after=10)
    await heartbeat.register()
    found = list[str]()

    async def beat(connection: Driver, *facts: Any) -> object:
        found.append(await connection.fetchval("SHOW synchronous_commit"))
        return await record_heartbeat(connection, *facts)

    async def at_once(_: float, stopping: asyncio.Event) -> bool:
        if found:
            await stopping.wait()
        return stopping.is_set()

    monkeypatch.setattr(heartbeats, "record_heartbeat", beat)
    monkeypatch.setattr(heartbeats, "wait_or_stop", at_once)
    await beat_once(heartbeat)
    assert found == ["off"]


async def test_a_consumer_writes_its_limits_into_its_row(database: Database) -> None:
    await make_heartbeat(database, presumed_dead_after=LONG).register()
    async with database.pool.acquire() as connection:
        (found,) = await list_consumers(connection)
    assert (found.heartbeat_interval, found.presumed_dead_after, found.alive) == (2, LONG, True)


async def test_a_lost_claim_says_what_was_seen_of_its_consumer(database: Database) -> None:
    facts = '{"by": "the step \'Count\' of \'w\'", "at": "flows.py:3 in count"}'
    async with database.transaction() as session:
        consumer = await add_claim(session, claimed=60)
        await add_consumer(session, silent=60, limit=10, consumer=consumer, blocked=40, facts=facts)
        (claim,) = await lock_lost_claims(session, reads_for=LONG, presumed_dead_after=10, limit=100)
    assert claim.seen == (
        "sent no heartbeat for 60 s, and when it sent the last one its event loop had been blocked for 40 s by the step"
        " 'Count' of 'w' at flows.py:3 in count"
    )
