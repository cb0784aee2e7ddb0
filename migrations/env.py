"""Alembic's entry point: runs the migrations on the connection that ``orchestrator db`` hands over.

With the plain ``alembic`` command there is none; then one is opened to ``ORCHESTRATOR_DATABASE_URL``, and what ``orchestrator db
upgrade`` does besides is done here: the default workflows are linked to all products.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection

from orchestrator.db.registration import link_default_workflows
from orchestrator.db.session import Database
from orchestrator.db.tables import Base
from orchestrator.settings import Settings, load_settings


def run(connection: Connection) -> bool:
    """Run what was asked for, inside the connection's transaction; return whether it was an upgrade."""
    upgrades: list[bool] = []

    def note(  # Alembic passes all of these by name
        ctx: MigrationContext,  # noqa: ARG001
        step: MigrationInfo,
        heads: Collection[Any],  # noqa: ARG001
        run_args: Mapping[str, Any],  # noqa: ARG001
    ) -> None:
        upgrades.append(step.is_upgrade and not step.is_stamp)

    context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, on_version_apply=note)
    with context.begin_transaction():
        context.run_migrations()
    return bool(upgrades) and all(upgrades)


def run_and_link(connection: Connection, settings: Settings) -> None:
    """Run what was asked for; after an upgrade, link the default workflows."""
    if run(connection):
        link_default_workflows(connection, settings.default_product_workflows)


async def run_alone() -> None:
    """Run as above, on a connection of our own."""
    settings = load_settings()
    database = Database.of(settings, "orchestrator-alembic", pool_size=1)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(run_and_link, settings)
    finally:
        await database.close()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_alone())
