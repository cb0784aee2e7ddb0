"""Products, subscriptions, blocks and processes written straight into the tables, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from orchestrator.db.session import DriverPool


@dataclass(frozen=True)
class Rows:
    """Writes rows; each method returns the new row's id."""

    pool: DriverPool

    async def product(self, name: str, **fixed_inputs: str) -> UUID:
        product_id = UUID(
            str(
                await self.pool.fetchval(
                    "INSERT INTO products (name, product_type, tag) VALUES ($1, 'Node', 'NODE') RETURNING product_id",
                    name,
                )
            )
        )
        await self.pool.executemany(
            "INSERT INTO fixed_inputs VALUES ($1, $2, $3)", [(product_id, *pair) for pair in fixed_inputs.items()]
        )
        return product_id

    async def workflow(
        self, name: str, target: str, *products: UUID, is_task: bool = False, gone: bool = False
    ) -> UUID:
        workflow_id = UUID(
            str(
                await self.pool.fetchval(
                    "INSERT INTO workflows (name, target, is_task, description, deleted_at)"
                    " VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN now() END) RETURNING workflow_id",
                    name,
                    target,
                    is_task,
                    f"about {name}",
                    gone,
                )
            )
        )
        await self.pool.executemany(
            "INSERT INTO products_workflows VALUES ($1, $2, $3)", [(one, workflow_id, target) for one in products]
        )
        return workflow_id

    async def subscription(
        self,
        product: UUID,
        *,
        status: str = "active",
        insync: bool = True,
        locked_by: UUID | None = None,
        customer: str = "acme",
        description: str = "a subscription",
        created_at: datetime | None = None,
        subscription_id: UUID | None = None,
    ) -> UUID:
        subscription_id = subscription_id or uuid4()
        await self.pool.execute(
            "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync, locked_by,"
            " created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, clock_timestamp()))",
            subscription_id,
            product,
            customer,
            description,
            status,
            insync,
            locked_by,
            created_at,
        )
        return subscription_id

    async def block(
        self,
        subscription: UUID,
        kind: str = "Port",
        resources: Mapping[str, object] | None = None,
        label: str | None = None,
    ) -> UUID:
        block_id = uuid4()
        await self.pool.execute(
            "WITH kind AS (INSERT INTO product_blocks (name) VALUES ($3) ON CONFLICT (name) DO UPDATE SET name = $3"
            " RETURNING product_block_id) INSERT INTO subscription_instances SELECT $1, $2, product_block_id, $4, $5 FROM kind",
            block_id,
            subscription,
            kind,
            label,
            json.dumps(resources or {}),
        )
        return block_id

    async def root(self, subscription: UUID, block: UUID, field: str = "port", position: int = 0) -> None:
        await self.pool.execute(
            "INSERT INTO subscription_roots VALUES ($1, $2, $3, $4)", subscription, field, position, block
        )

    async def inside(self, outer: UUID, inner: UUID, field: str = "port", position: int = 0) -> None:
        await self.pool.execute(
            "INSERT INTO subscription_instance_relations VALUES ($1, $2, $3, $4)", outer, field, position, inner
        )

    async def process(self, workflow: UUID, status: str, *touched: UUID, started_by: str = "alice") -> UUID:
        process_id = uuid4()
        await self.pool.execute(
            "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, step, entered, attempt,"
            " sequence, failures, lost, rewinds, state, started_by, actor, started_at)"
            " SELECT $1, workflow_id, name, is_task, $3, 0, NULL, false, 0, 0, 0, 0, 0, '{}', $4, $4, clock_timestamp()"
            " FROM workflows WHERE workflow_id = $2",
            process_id,
            workflow,
            status,
            started_by,
        )
        for subscription in touched:
            await self.pool.execute("INSERT INTO processes_subscriptions VALUES ($1, $2)", process_id, subscription)
        return process_id

    async def entry(
        self,
        process: UUID,
        sequence: int,
        name: str,
        status: str = "success",
        *,
        attempt: int = 1,
        delta: Mapping[str, object] | None = None,
        failure: Mapping[str, object] | None = None,
    ) -> None:
        await self.pool.execute(
            "INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, failure, author,"
            " consumer, started_at, finished_at)"
            " VALUES ($1, $2, 'step', $3, $2, $4, $5, $6, $7, 'alice', 'c1', now(), now())",
            process,
            sequence,
            name,
            attempt,
            status,
            json.dumps(delta or {}),
            None if failure is None else json.dumps(failure),
        )

    async def change(
        self,
        subscription: UUID,
        version: int,
        changes: Mapping[str, list[Any]],
        *,
        process: UUID | None = None,
        step: str | None = None,
        attempt: int | None = 1,
    ) -> None:
        await self.pool.execute(
            "INSERT INTO subscription_changes (subscription_id, version, process_id, step, attempt, author, changes)"
            " VALUES ($1, $2, $3, $4, $5, 'alice', $6)",
            subscription,
            version,
            process,
            step,
            None if process is None else attempt,
            json.dumps(changes),
        )
