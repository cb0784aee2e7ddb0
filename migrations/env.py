"""Alembic's entry point: runs the migrations on the connection that ``orchestrator db`` hands over.

With the plain ``alembic`` command there is none; then one is opened to ``ORCHESTRATOR_DATABASE_URL``.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator.db.tables import Base
from orchestrator.settings import load_settings


def run(connection: Connection) -> None:
    """Run what was asked for, inside the connection's transaction."""
    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    """As above, on a connection of our own."""
    engine = create_async_engine(load_settings().database_url.get_secret_value())
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_alone())
