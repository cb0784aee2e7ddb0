"""A database that knows the shared models' products, and ways to make and look at subscriptions in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import PROCESS_ID, Database
from orchestrator.domain import (
    SubscriptionModel,
)
from orchestrator.types import JSON, SubscriptionLifecycle
from tests.unit.models import (
    FolderBlockInactive,
    FolderInactive,
    Link,
    LinkInactive,
    Node,
    NodeInactive,
)

ACTIVE = SubscriptionLifecycle.ACTIVE

BLOCKS = {
    "Node": ["node_name", "ims_id", "tags"],
    "Port": ["vlan", "speed"],
    "Fibre": ["colour"],
    "Folder": ["title", "size", "words", "ratio", "anything"],
}
PRODUCTS = {"Node P": {"role": "P"}, "Node PE": {"role": "PE"}, "Link": {"speed": "1000"}, "Folder": {}}
TABLES = ("subscriptions", "subscription_instances", "subscription_roots", "subscription_instance_relations")


@dataclass
class Bench:
    """A database that knows the products, and a process that changes subscriptions."""

    database: Database
    process_id: UUID
    products: dict[str, UUID]

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Provide a step's session, as far as models are concerned."""
        async with self.database.transaction() as session:
            session.info[PROCESS_ID] = self.process_id
            yield session

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect what is sent meanwhile."""
        sent: list[str] = []

        def note(_: object, __: object, statement: str, *___: object) -> None:
            sent.append(statement)

        engine = self.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        yield sent
        event.remove(engine, "before_cursor_execute", note)

    async def save(self, *subscriptions: SubscriptionModel) -> None:
        async with self.session() as session:
            for one in subscriptions:
                await one.save(session)

    async def node(self, name: str = "ams-1", ims_id: int = 7) -> Node:
        """Save and return a new active node."""
        async with self.session() as session:
            made = await NodeInactive.from_product_id(session, self.products["Node P"], "customer")
            made.node.node_name, made.node.ims_id = name, ims_id
            node = Node.from_other_lifecycle(made, ACTIVE)
            await node.save(session)
        return node

    async def link(self, *nodes: Node) -> Link:
        """Save and return a new active link between two nodes."""
        async with self.session() as session:
            made = await LinkInactive.from_product_id(session, self.products["Link"], "customer")
            for vlan, port, node in zip((1, 2), made.ports, nodes, strict=True):
                port.vlan, port.node = vlan, node.node
            link = Link.from_other_lifecycle(made, ACTIVE)
            await link.save(session)
        return link

    async def folders(self, size: int = 0) -> FolderInactive:
        """Save and return a new folder with so many in it."""
        async with self.session() as session:
            made = await FolderInactive.from_product_id(session, self.products["Folder"], "customer")
            made.top.folders += [FolderBlockInactive.new(made.subscription_id, title=str(n)) for n in range(size)]
            await made.save(session)
        return made

    async def load(self, subscription_id: UUID) -> SubscriptionModel:
        async with self.session() as session:
            return await SubscriptionModel.from_subscription(session, subscription_id)

    async def count(self, table: str, condition: str = "true", *values: object) -> int:
        found: int = await self.database.pool.fetchval(f"SELECT count(*) FROM {table} WHERE {condition}", *values)
        return found

    async def changes(self, subscription_id: UUID) -> list[dict[str, list[JSON]]]:
        rows = await self.database.pool.fetch(
            "SELECT changes FROM subscription_changes WHERE subscription_id = $1 ORDER BY change_id", subscription_id
        )
        return [json.loads(row["changes"]) for row in rows]

    async def wait_until_blocked(self) -> None:
        """Wait until a statement of another connection waits for a lock."""
        async with asyncio.timeout(60):
            while not await self.count(  # noqa: ASYNC110 - nothing signals what another connection waits for
                "pg_stat_activity", "datname = current_database() AND wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)


async def register(database: Database) -> dict[str, UUID]:
    pool, products = database.pool, {}
    for block, resource_types in BLOCKS.items():
        block_id = await pool.fetchval(
            "INSERT INTO product_blocks (name) VALUES ($1) RETURNING product_block_id", block
        )
        for name in resource_types:
            await pool.execute(
                """
                WITH made AS (INSERT INTO resource_types (resource_type) VALUES ($2) RETURNING resource_type_id)
                INSERT INTO product_block_resource_types (product_block_id, resource_type_id)
                SELECT $1, resource_type_id FROM made
                """,
                block_id,
                name,
            )
    for name, fixed in PRODUCTS.items():
        products[name] = await pool.fetchval(
            "INSERT INTO products (name, product_type) VALUES ($1, 'T') RETURNING product_id", name
        )
        for key, value in fixed.items():
            await pool.execute("INSERT INTO fixed_inputs VALUES ($1, $2, $3)", products[name], key, value)
    return products


async def start_process(database: Database) -> UUID:
    process_id: UUID = await database.pool.fetchval(
        """
        WITH made AS (INSERT INTO workflows (name, target, is_task) VALUES ('w', 'SYSTEM', true) RETURNING workflow_id)
        INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt, sequence,
                               failures, lost, rewinds, state, started_by, actor)
        SELECT gen_random_uuid(), workflow_id, 'w', true, 'running', 0, 'the step', true, 3, 1, 0, 0, 0, '{}', 'ann', 'ben'
          FROM made
        RETURNING process_id
        """
    )
    return process_id


async def make_bench(database: Database) -> Bench:
    """Fill a fresh database with what the shared models need."""
    return Bench(database, await start_process(database), await register(database))
