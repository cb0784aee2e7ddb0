"""Processes and entries of their logs, stored by transactions that commit in any order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

from orchestrator.db.session import Database, Driver
from orchestrator.engine.position import Position
from orchestrator.messages import ProcessEvent
from orchestrator.services.feed import EventFilter, EventPage, read_events


class Log:
    """Writes processes and entries as transactions do, in any order."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workflows: dict[str, UUID] = {}

    async def process(self, workflow: str = "w", state: Mapping[str, object] | None = None) -> UUID:
        """Store a process without entries."""
        if workflow not in self.workflows:
            self.workflows[workflow] = await self.database.pool.fetchval(
                "INSERT INTO workflows (name, target) VALUES ($1, 'SYSTEM') RETURNING workflow_id", workflow
            )
        process_id = uuid4()
        await self.database.pool.execute(
            "INSERT INTO processes (process_id, workflow_id, workflow, is_task, status, position, entered, attempt, sequence,"
            " failures, lost, rewinds, state, started_by, actor)"
            " VALUES ($1, $2, $3, false, 'running', 0, false, 0, 1, 0, 0, 0, $4, 'ana', 'ana')",
            process_id,
            self.workflows[workflow],
            workflow,
            json.dumps(state or {}),
        )
        return process_id

    async def add(
        self, connection: Driver, process_id: UUID, *sequences: int, kind: str = "step", name: str = "Configure"
    ) -> None:
        """Store entries in the connection's transaction."""
        await connection.executemany(
            "INSERT INTO process_steps (process_id, sequence, kind, name, position, attempt, status, delta, author, started_at,"
            " finished_at) VALUES ($1, $2, $3, $5, 4, 2, 'success', '{}', 'ana', $4, $4)",
            [(process_id, number, kind, datetime(2026, 11, 26, 5, tzinfo=UTC), name) for number in sequences],
        )

    async def store(self, process_id: UUID, *sequences: int, kind: str = "step", name: str = "Configure") -> None:
        """Store entries in a transaction of their own."""
        async with self.transaction() as connection:
            await self.add(connection, process_id, *sequences, kind=kind, name=name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Driver]:
        """Open a transaction that has its number; commit it at the end."""
        connection = await self.database.connect("tests")
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_current_xact_id()")
                yield connection
        finally:
            await connection.close()

    async def read(self, since: Position, wanted: EventFilter | None = None) -> EventPage:
        """Read one page."""
        return await read_events(self.database.pool, since, wanted or EventFilter())

    async def follow(self, since: Position, wanted: EventFilter | None = None) -> tuple[list[ProcessEvent], Position]:
        """Read to the end, going on from the text of each position."""
        events: list[ProcessEvent] = []
        while True:
            page = await self.read(since, wanted)
            events += [one.event for one in page.events]
            since = Position.parse(str(page.position))
            if page.is_last:
                return events, since
