"""For tests of migrations: a database with a few products, subscriptions of them, and calls as a migration makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection

from orchestrator.db import registration as register
from orchestrator.db.registration.catalogue import read_links
from orchestrator.db.session import Database
from orchestrator.db.subscriptions.change_keys import make_link_key, make_value_key
from orchestrator.errors import ConfigurationError

Call = Callable[[Connection], Any]


class Migration:
    """Runs calls of the helpers as a migration does: in a transaction, on a synchronous connection."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def __call__(self, *calls: Call) -> Any:
        def run(connection: Connection) -> Any:
            return [call(connection) for call in calls][-1]

        async with self.database.engine.begin() as connection:
            return await connection.run_sync(run)

    async def refused(self, call: Call) -> str:
        with pytest.raises(ConfigurationError) as caught:
            await self(call)
        return str(caught.value)

    async def rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.database.pool.fetch(sql, *arguments)]


async def subscribe(
    migration: Migration, product: str, blocks: dict[str, dict[str, Any]] | None = None
) -> tuple[UUID, list[UUID]]:
    """Store a subscription with blocks in its field ``nodes``, a list, and its history."""
    subscription, instances = uuid4(), []
    pool = migration.database.pool
    await pool.execute(
        "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
        " SELECT $1, product_id, 'ACME', '', 'active', true FROM products WHERE name = $2",
        subscription,
        product,
    )
    changes: dict[str, list[Any]] = {}
    for number, (block, resources) in enumerate((blocks or {}).items()):
        instances.append(uuid4())
        await pool.execute(
            "INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)"
            " SELECT $1, $2, product_block_id, $4 FROM product_blocks WHERE name = $3",
            instances[-1],
            subscription,
            block,
            json.dumps(resources),
        )
        await pool.execute(
            "INSERT INTO subscription_roots VALUES ($1, 'nodes', $2, $3)", subscription, number, instances[-1]
        )
        changes[make_link_key(None, "nodes", number)] = [None, str(instances[-1])]
        changes |= {make_value_key(instances[-1], name): [None, value] for name, value in resources.items()}
    await pool.execute(
        "INSERT INTO subscription_changes (subscription_id, version, author, changes) VALUES ($1, 1, 'alice', $2)",
        subscription,
        json.dumps(changes),
    )
    return subscription, instances


async def with_products(database: Database) -> Migration:
    """Return a database with two products of one type, and one of another."""
    given = Migration(database)
    await given(
        lambda c: register.register_product_block(c, name="Port", resource_types=["speed", "vlan"]),
        lambda c: register.register_product_block(
            c,
            name="Node",
            description="A router",
            tag="NODE",
            resource_types=["node_name", "ims_id"],
            depends_on=["Port", "Node"],
        ),
        lambda c: register.register_product(
            c,
            name="Node P",
            product_type="Node",
            description="A provider's router",
            tag="NODE",
            fixed_inputs={"role": "P", "ports": 8, "managed": True},
            product_blocks=["Node"],
        ),
        lambda c: register.register_product(c, name="Node PE", product_type="Node", product_blocks=["Node"]),
        lambda c: register.register_product(c, name="Link", product_type="Link"),
    )
    return given


async def links_of(migration: Migration) -> dict[str, set[str]]:
    async with migration.database.transaction() as session:
        return {workflow: set(products) for workflow, products in (await read_links(session)).items()}
