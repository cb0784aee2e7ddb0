"""What subscriptions hold, when a migration renames, drops or fills it in: B1, B23."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db import registration as register
from orchestrator.db.session import PROCESS_ID, Database
from orchestrator.domain import explain, flat
from orchestrator.errors import ConcurrentChangeError
from tests.integration.migrating import Migration, subscribe, with_products
from tests.unit.models import LinkInactive, NodeBlockInactive

Call = Callable[[Connection], Any]
WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE datname = current_database() AND NOT granted"
)


@pytest.fixture
async def migration(database: Database) -> Migration:
    return await with_products(database)


async def test_values_are_dropped_only_when_that_is_said(migration: Migration) -> None:
    subscription, (node, _) = await subscribe(
        migration, "Node P", {"Node": {"ims_id": 7, "node_name": "ams"}, "Port": {"vlan": 1}}
    )
    for call in (
        lambda c: register.remove_resource_type(c, "ims_id"),
        lambda c: register.remove_resource_types(c, "Node", ["ims_id"]),
    ):
        assert await migration.refused(call) == (
            "subscriptions hold values of the resource type 'ims_id' (1): values='drop' deletes these, for good; if it only"
            " got another name, use rename_resource_type"
        )
    await migration(lambda c: register.remove_resource_types(c, "Node", ["ims_id"], values="drop"))
    assert await migration.rows(
        "SELECT resources FROM subscription_instances JOIN product_blocks USING (product_block_id) ORDER BY name"
    ) == [('{"node_name": "ams"}',), ('{"vlan": 1}',)]
    assert await _history(migration, subscription) == [
        (2, "migration", {f"{node}.ims_id": [7, None]}, "a migration has dropped the resource type ims_id")
    ]


async def test_a_value_that_is_being_saved_is_not_overlooked(migration: Migration) -> None:
    """The migration waits for the step's commit, and then refuses because of what it has stored."""
    _, (instance,) = await subscribe(migration, "Node P", {"Node": {"node_name": "ams"}})
    pool = migration.database.pool
    async with pool.acquire() as step:
        transaction = step.transaction()
        await transaction.start()
        await step.execute("UPDATE subscriptions SET version = version + 1")
        await step.execute(
            "UPDATE subscription_instances SET resources = resources || '{\"ims_id\": 7}' WHERE subscription_instance_id = $1",
            instance,
        )
        refused = asyncio.create_task(migration.refused(lambda c: register.remove_resource_type(c, "ims_id")))
        async with asyncio.timeout(60):
            while not await pool.fetchval(WAITING):  # noqa: ASYNC110 - another session's wait, in the database
                await asyncio.sleep(0.01)
        await transaction.commit()
    assert "subscriptions hold values of the resource type 'ims_id' (1)" in await refused


class Step:
    """A step's own connection, in a transaction."""

    def __init__(self, connection: Any, subscription: UUID, block: UUID) -> None:
        self.connection, self.subscription, self.block = connection, subscription, block

    async def begin(self, how: str) -> None:
        await self.connection.execute(how, self.subscription)

    async def store(self) -> None:
        """What a step does when it saves a model with a new block."""
        await self.connection.execute(
            "UPDATE subscriptions SET version = version + 1 WHERE subscription_id = $1", self.subscription
        )
        await self.connection.execute(
            "INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id)"
            " SELECT $1, $2, product_block_id FROM product_blocks WHERE product_block_id = $3",
            uuid4(),
            self.subscription,
            self.block,
        )


@pytest.mark.parametrize(
    "begin",
    [
        "UPDATE subscriptions SET version = version + 1 WHERE subscription_id = $1",
        "SELECT 1 FROM subscriptions WHERE subscription_id = $1 FOR NO KEY UPDATE",
        "SELECT 1 FROM subscriptions WHERE subscription_id = $1 FOR SHARE",
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda c: register.rename_product_block(c, "Node", "Router"),
        lambda c: register.rename_product(c, "Node P", "Core"),
        lambda c: register.fill_values(c, "Node", {"node_name": "unnamed"}),
    ],
)
async def test_a_migration_and_a_step_that_saves_wait_for_each_other_one_way_round(
    migration: Migration, begin: str, call: Call
) -> None:
    """Whatever the migration does first, it holds nothing that the step needs while it waits for the step."""
    subscription, _ = await subscribe(migration, "Node P", {"Node": {"ims_id": 7}})
    ((block,),) = await migration.rows("SELECT product_block_id FROM product_blocks WHERE name = 'Node'")
    pool = migration.database.pool
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        step = Step(connection, subscription, block)
        await step.begin(begin)
        running = asyncio.create_task(
            migration(call, lambda c: register.rename_resource_type(c, "ims_id", "inventory_id"))
        )
        async with asyncio.timeout(60):
            while not await pool.fetchval(WAITING):  # noqa: ASYNC110 - another session's wait, in the database
                await asyncio.sleep(0.01)
        await step.store()
        await transaction.commit()
    await running
    assert await migration.rows("SELECT resources ->> 'inventory_id' FROM subscription_instances ORDER BY 1") == [
        ("7",),
        (None,),
    ]


async def test_values_move_along_with_a_new_name_and_the_history_tells_it(migration: Migration) -> None:
    """B1: whatever changes a subscription is in its history, and no model that was loaded before can be saved over it."""
    first, (node, _) = await subscribe(migration, "Node P", {"Node": {"ims_id": 7}, "Port": {"vlan": 1}})
    untouched, _ = await subscribe(migration, "Node P", {"Port": {"vlan": 2}})
    await migration(lambda c: register.rename_resource_type(c, "ims_id", "inventory_id"))
    assert await migration.rows("SELECT resources FROM subscription_instances ORDER BY resources::text") == [
        ('{"inventory_id": 7}',),
        ('{"vlan": 1}',),
        ('{"vlan": 2}',),
    ]
    assert await migration.rows("SELECT version FROM subscriptions WHERE subscription_id = $1", first) == [(2,)]
    assert await migration.rows("SELECT version FROM subscriptions WHERE subscription_id = $1", untouched) == [(1,)]
    assert await _history(migration, first) == [
        (
            2,
            "migration",
            {f"{node}.ims_id": [7, None], f"{node}.inventory_id": [None, 7]},
            "a migration has renamed the resource type ims_id to inventory_id",
        )
    ]
    assert await _history(migration, untouched) == []


async def test_missing_values_can_be_filled_in(migration: Migration) -> None:
    subscription, (node, _) = await subscribe(migration, "Node P", {"Node": {"ims_id": 7}, "Port": {"vlan": 1}})
    other, _ = await subscribe(migration, "Node P", {"Node": {"node_name": "ams"}})
    await migration(lambda c: register.fill_values(c, "Node", {"node_name": "unnamed"}))
    assert await migration.rows("SELECT resources ->> 'node_name' FROM subscription_instances ORDER BY 1") == [
        ("ams",),
        ("unnamed",),
        (None,),
    ]
    assert [changes for _, _, changes, _ in await _history(migration, subscription)] == [
        {f"{node}.node_name": [None, "unnamed"]}
    ]
    assert await _history(migration, other) == []


async def test_a_resource_type_is_renamed_in_one_block_and_stays_in_others(migration: Migration) -> None:
    """B1, B23: also when the upgrade has registered the new name first, as the written migration does."""
    subscription, (node, _) = await subscribe(migration, "Node P", {"Node": {"speed": 7}, "Port": {"speed": 9}})
    await migration(
        lambda c: register.add_resource_types(c, "Node", ["speed", "pace"]),
        lambda c: register.rename_resource_type(c, "speed", "pace", block="Node"),
    )
    values = "SELECT resources FROM subscription_instances JOIN product_blocks USING (product_block_id) ORDER BY name"
    assert await migration.rows(values) == [('{"pace": 7}',), ('{"speed": 9}',)]
    types = (
        "SELECT b.name, array_agg(resource_type ORDER BY resource_type) FROM product_block_resource_types"
        " JOIN resource_types USING (resource_type_id) JOIN product_blocks b USING (product_block_id) GROUP BY 1 ORDER BY 1"
    )
    assert await migration.rows(types) == [("Node", ["ims_id", "node_name", "pace"]), ("Port", ["speed", "vlan"])]
    assert await _history(migration, subscription) == [
        (
            2,
            "migration",
            {f"{node}.pace": [None, 7], f"{node}.speed": [7, None]},
            "a migration has renamed the resource type speed to pace",
        )
    ]
    await migration(lambda c: register.rename_resource_type(c, "pace", "speed", block="Node"))
    assert await migration.rows(values) == [('{"speed": 7}',), ('{"speed": 9}',)]
    assert await migration.rows("SELECT FROM resource_types WHERE resource_type = 'pace'") == []


async def test_a_name_under_which_subscriptions_hold_values_is_given_to_no_others(migration: Migration) -> None:
    await subscribe(migration, "Node P", {"Node": {"ims_id": 7}, "Port": {"speed": 9, "vlan": 1}})
    assert await migration.refused(lambda c: register.rename_resource_type(c, "speed", "vlan", block="Port")) == (
        "subscriptions hold values of the resource type 'vlan' of 'Port' already (1): 'speed' cannot be renamed to that"
    )


async def test_wrong_values_are_overwritten_only_when_that_is_said(migration: Migration) -> None:
    """B1: the history has what was there; who had the right value has no new entry."""
    wrong, (node,) = await subscribe(migration, "Node P", {"Node": {"ims_id": "ground"}})
    right, _ = await subscribe(migration, "Node P", {"Node": {"ims_id": 0}})
    await migration(lambda c: register.fill_values(c, "Node", {"ims_id": 0}))
    assert await _history(migration, wrong) == []
    await migration(lambda c: register.fill_values(c, "Node", {"ims_id": 0}, overwrite=True))
    assert [changes for _, _, changes, _ in await _history(migration, wrong)] == [{f"{node}.ims_id": ["ground", 0]}]
    assert await _history(migration, right) == []
    assert await migration.rows("SELECT DISTINCT resources FROM subscription_instances") == [('{"ims_id": 0}',)]


async def test_one_wrong_value_is_replaced_wherever_it_is(migration: Migration) -> None:
    """Other values, and what other blocks have under that name, stay."""
    wrong, (node,) = await subscribe(migration, "Node P", {"Node": {"ims_id": "ground", "node_name": "ground"}})
    right, _ = await subscribe(migration, "Node P", {"Node": {"ims_id": 0}, "Port": {"speed": "ground"}})
    await migration(lambda c: register.replace_value(c, "Node", "ims_id", "ground", 7))
    assert await _history(migration, wrong) == [
        (
            2,
            "migration",
            {f"{node}.ims_id": ["ground", 7]},
            "a migration has replaced a value of the resource type ims_id",
        )
    ]
    assert await _history(migration, right) == []
    for call, why in (
        (
            lambda c: register.replace_value(c, "Node", "colour", 1, 2),
            "the product block 'Node' has no resource type 'colour'",
        ),
        (
            lambda c: register.replace_value(c, "Node", "ims_id", 1, None),
            "a value of 'ims_id' in 'Node' cannot be replaced with",
        ),
        (
            lambda c: register.replace_value(c, "Node", "ims_id", 1, "\0"),
            "the value for 'ims_id' cannot be stored as JSON: ",
        ),
    ):
        assert (await migration.refused(call)).startswith(why)


async def _history(migration: Migration, subscription: UUID) -> list[tuple[Any, ...]]:
    """What migrations have changed."""
    rows = await migration.rows(
        "SELECT version, author, changes, note FROM subscription_changes WHERE subscription_id = $1 AND version > 1"
        " ORDER BY change_id",
        subscription,
    )
    return [(version, author, json.loads(changes), note) for version, author, changes, note in rows]


async def test_after_a_migration_the_history_still_explains_every_value(database: Database) -> None:
    """B1: also in lists, in blocks below others', and for whoever loads the subscription afterwards."""
    migration, session_of = Migration(database), await _process(database)
    await migration(
        lambda c: register.register_product_block(c, name="Node", resource_types=["node_name", "ims_id", "tags"]),
        lambda c: register.register_product_block(
            c, name="Port", resource_types=["vlan", "speed"], depends_on=["Node"]
        ),
        lambda c: register.register_product(
            c, name="Link", product_type="Link", fixed_inputs={"speed": 1000}, product_blocks=["Port"]
        ),
    )
    async with session_of() as session:
        link = await LinkInactive.from_product_id(session, await _product_id(database, "Link"), "ACME")
        for number, port in enumerate(link.ports):
            port.vlan, port.speed = number, None
            port.node = NodeBlockInactive.new(link.subscription_id, node_name=f"ams-{number}", ims_id=number)
        await link.save(session)

    await migration(
        lambda c: register.fill_values(c, "Port", {"speed": 10}),
        lambda c: register.remove_resource_types(c, "Node", ["ims_id"], values="drop"),
        lambda c: register.rename_resource_type(c, "vlan", "old_vlan"),
        lambda c: register.rename_resource_type(c, "old_vlan", "vlan"),
    )

    async with session_of() as session:
        again = await LinkInactive.from_subscription(session, link.subscription_id)
    assert [(port.vlan, port.speed) for port in again.ports] == [(0, 10), (1, 10)]
    assert [port.node.ims_id for port in again.ports if port.node] == [None, None]
    history = await migration.rows("SELECT changes FROM subscription_changes ORDER BY change_id")
    assert len(history) == 5
    assert explain(json.loads(changes) for (changes,) in history) == flat(again)
    assert again.version == 5
    with pytest.raises(ConcurrentChangeError):
        async with session_of() as session:
            link.ports[0].vlan = 7
            await link.save(session)


async def test_a_rename_is_one_statement_whatever_the_number_of_subscriptions(migration: Migration) -> None:
    """And no entry that exists is touched: each subscription gets one more."""
    changed: list[int] = []

    def note(_c: object, cursor: Any, statement: str, *_: object) -> None:
        if "UPDATE subscription_instances" in statement:
            changed.append(cursor.rowcount)

    event.listen(migration.database.engine.sync_engine, "after_cursor_execute", note)
    made = [await subscribe(migration, "Node P", {"Node": {"ims_id": number}}) for number in range(5)]
    entries = "SELECT change_id, xmin::text, changes FROM subscription_changes WHERE version = 1 ORDER BY change_id"
    before = await migration.rows(entries)
    await migration(lambda c: register.rename_resource_type(c, "ims_id", "inventory_id"))
    assert changed == [5]
    assert await migration.rows(entries) == before
    for number, (subscription, (node,)) in enumerate(made):
        ((_, _, changes, _),) = await _history(migration, subscription)
        assert changes == {f"{node}.ims_id": [number, None], f"{node}.inventory_id": [None, number]}


async def _product_id(database: Database, name: str) -> UUID:
    found: UUID = await database.pool.fetchval("SELECT product_id FROM products WHERE name = $1", name)
    return found


async def _process(database: Database) -> Callable[[], AbstractAsyncContextManager[AsyncSession]]:
    """Sessions as the steps of a process have them."""
    process = uuid4()
    await database.pool.execute(
        "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence,"
        " failures, lost, rewinds, state, started_by, actor) SELECT $1, workflow_id, name, false, 'running', 0, true, 1, 1, 0,"
        " 0, 0, '{}', 'alice', 'alice' FROM workflows WHERE name = 'modify_note'",
        process,
    )

    @asynccontextmanager
    async def session_of() -> AsyncIterator[AsyncSession]:
        async with database.transaction() as session:
            session.info[PROCESS_ID] = process
            yield session

    return session_of
