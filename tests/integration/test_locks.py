"""B28, B29: the lock of a subscription on a real database."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from orchestrator.db.session import Database
from orchestrator.db.subscriptions import locks
from orchestrator.errors import NotFoundError

WORKFLOW = """
INSERT INTO workflows (name, target) VALUES ('modify_node', 'MODIFY') ON CONFLICT DO NOTHING
"""
PROCESS = """
INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence, failures,
                       lost, rewinds, state, started_by, actor)
SELECT $1, workflow_id, name, is_task, $2, 0, true, 1, 1, 0, 0, 0, '{}', 'ann', 'ann' FROM workflows WHERE name = 'modify_node'
"""
SUBSCRIPTION = """
WITH product AS (
    INSERT INTO products (name, product_type) VALUES ('Node', 'Node')
    ON CONFLICT (name) DO UPDATE SET tag = '' RETURNING product_id
)
INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)
SELECT $1, product_id, 'customer', 'node', 'active', $2 FROM product
"""


async def make_process(database: Database, status: str = "running") -> UUID:
    process_id = uuid4()
    await database.pool.execute(WORKFLOW)
    await database.pool.execute(PROCESS, process_id, status)
    return process_id


async def make_subscription(database: Database, *, insync: bool = True) -> UUID:
    subscription_id = uuid4()
    await database.pool.execute(SUBSCRIPTION, subscription_id, insync)
    return subscription_id


async def take(database: Database, subscription_id: UUID, process_id: UUID, *, take_over: bool = False) -> bool:
    async with database.transaction() as session:
        return await locks.take_lock(session, subscription_id, process_id, take_over=take_over)


async def release(database: Database, subscription_id: UUID, process_id: UUID) -> bool:
    async with database.transaction() as session:
        return subscription_id in await locks.release_locks(session, process_id)


async def holder(database: Database, subscription_id: UUID) -> locks.LockState:
    async with database.transaction() as session:
        return await locks.read_lock(session, subscription_id)


async def test_of_many_processes_at_the_same_instant_exactly_one_gets_the_lock(database: Database) -> None:
    subscription_id = await make_subscription(database)
    process_ids = [await make_process(database) for _ in range(10)]

    taken = await asyncio.gather(*(take(database, subscription_id, one) for one in process_ids))

    assert taken.count(True) == 1
    assert (await holder(database, subscription_id)).process_id == process_ids[taken.index(True)]


async def test_a_process_may_take_its_own_lock_again(database: Database) -> None:
    subscription_id, process_id = await make_subscription(database), await make_process(database)

    assert await take(database, subscription_id, process_id)
    assert await take(database, subscription_id, process_id)
    assert await take(database, subscription_id, process_id, take_over=True)


async def test_only_the_holder_releases(database: Database) -> None:
    subscription_id = await make_subscription(database)
    first, second = await make_process(database), await make_process(database)
    await take(database, subscription_id, first)

    assert not await release(database, subscription_id, second)
    assert not (await holder(database, subscription_id)).insync
    assert await release(database, subscription_id, first)
    assert (await holder(database, subscription_id)).insync
    assert not await release(database, subscription_id, first)


@pytest.mark.parametrize("status", ["created", "running", "suspended", "waiting", "awaiting_callback", "failed"])
async def test_nobody_takes_over_from_a_process_that_may_go_on(database: Database, status: str) -> None:
    subscription_id = await make_subscription(database)
    first, second = await make_process(database, status), await make_process(database)
    await take(database, subscription_id, first)

    assert not await take(database, subscription_id, second, take_over=True)
    found = await holder(database, subscription_id)
    assert found.process_id == first
    assert str(found) == f"the process {first} (modify_node, {status}) holds it"


@pytest.mark.parametrize("status", ["aborted", "completed"])
async def test_what_a_finished_process_has_left_locked_can_be_taken_over(database: Database, status: str) -> None:
    subscription_id = await make_subscription(database)
    first, second = await make_process(database, status), await make_process(database)
    await take(database, subscription_id, first)

    assert not await take(database, subscription_id, second)
    assert await take(database, subscription_id, second, take_over=True)
    async with database.transaction() as session:
        assert await locks.list_locked(session, first) == []
        assert await locks.list_locked(session, second) == [subscription_id]


async def test_what_nobody_holds_can_be_taken_over_though_it_is_out_of_sync(database: Database) -> None:
    subscription_id, process_id = await make_subscription(database, insync=False), await make_process(database)

    assert str(await holder(database, subscription_id)) == "it is out of sync, and no process holds it"
    assert not await take(database, subscription_id, process_id)
    assert await take(database, subscription_id, process_id, take_over=True)


async def test_locking_is_no_change_of_the_version(database: Database) -> None:
    subscription_id, process_id = await make_subscription(database), await make_process(database)

    await take(database, subscription_id, process_id)
    await release(database, subscription_id, process_id)

    assert (
        await database.pool.fetchval("SELECT version FROM subscriptions WHERE subscription_id = $1", subscription_id)
        == 1
    )


async def test_a_subscription_that_does_not_exist_is_named(database: Database) -> None:
    missing = uuid4()

    with pytest.raises(NotFoundError, match=f"there is no subscription {missing}"):
        await holder(database, missing)


async def test_linking_twice_or_to_nothing_is_harmless(database: Database) -> None:
    subscription_id, process_id = await make_subscription(database), await make_process(database)

    for _ in range(2):
        async with database.transaction() as session:
            await locks.link_subscriptions(session, process_id, [subscription_id, uuid4()])

    rows = await database.pool.fetch("SELECT process_id, subscription_id FROM processes_subscriptions")
    assert [tuple(row) for row in rows] == [(process_id, subscription_id)]


async def test_all_that_a_process_holds_is_released_together(database: Database) -> None:
    """B29: what its steps have made besides must not stay locked by a process that has ended."""
    process_id, other = await make_process(database), await make_process(database)
    held = [await make_subscription(database) for _ in range(3)]
    for one in held:
        assert await take(database, one, process_id)
    foreign = await make_subscription(database)
    assert await take(database, foreign, other)

    async with database.transaction() as session:
        assert set(await locks.release_locks(session, process_id)) == set(held)
        assert await locks.release_locks(session, process_id) == []

    assert all([(await holder(database, one)).insync for one in held])
    assert (await holder(database, foreign)).process_id == other
