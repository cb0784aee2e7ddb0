"""The database's shape: migrations and models agree, up and down, and a project's own migrations stand beside ours."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from orchestrator.db.migrations import (
    Registration,
    downgrade,
    pending,
    registered,
    registration_code,
    upgrade,
    write_revision,
)
from orchestrator.db.session import Database
from orchestrator.db.tables import Base
from orchestrator.errors import ConfigurationError

NOWHERE = Path("there-is-none")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))


async def test_the_migrations_make_exactly_what_the_models_say(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_every_migration_can_be_undone_and_done_again(database: Database) -> None:
    assert await downgrade(database.engine, NOWHERE, "base") == []
    tables = await database.pool.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert tables == 1, "only Alembic's own table is left"
    assert await pending(database.engine, NOWHERE) == ["0002"]
    assert await upgrade(database.engine, NOWHERE) == ["0002"]
    assert await pending(database.engine, NOWHERE) == []
    async with database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_an_upgrade_of_an_up_to_date_database_changes_nothing(database: Database) -> None:
    assert await upgrade(database.engine, NOWHERE) == ["0002"]


async def test_a_written_revision_registers_and_removes_workflows(database: Database, tmp_path: Path) -> None:
    """B13: registration in the database is done by migrations, which the difference between code and database writes."""
    project = tmp_path / "migrations"
    new = [Registration("create_node", "CREATE", False, "Create a 'node'"), Registration("clean", "SYSTEM", True, "")]
    upgrades, downgrades, imports = registration_code(new, [])
    write_revision(project, "register", upgrades=upgrades, downgrades=downgrades, imports=imports)
    await upgrade(database.engine, project)
    async with database.transaction() as session:
        assert await registered(session) == sorted(new, key=lambda one: one.name)

    upgrades, downgrades, imports = registration_code([], [new[0]])
    write_revision(project, "remove", upgrades=upgrades, downgrades=downgrades, imports=imports)
    await upgrade(database.engine, project)
    async with database.transaction() as session:
        assert [one.name for one in await registered(session)] == ["clean"]


async def test_a_wrong_project_migration_changes_nothing_and_is_named(database: Database, tmp_path: Path) -> None:
    project = tmp_path / "migrations"
    write_revision(project, "wrong", upgrades="op.execute('CREATE TABLE mine (x int)')\n    op.execute('NONSENSE')")
    with pytest.raises(ConfigurationError, match="NONSENSE"):
        await upgrade(database.engine, project)
    assert await database.pool.fetchval("SELECT to_regclass('mine')") is None


async def test_the_log_cannot_be_rewritten(database: Database) -> None:
    """B7: no attempt is overwritten: the table refuses updates."""
    async with database.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO engine_settings_log (global_lock, author) VALUES (true, 'somebody')",
        )
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute("UPDATE engine_settings_log SET author = 'somebody else'")
