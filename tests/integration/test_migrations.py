"""The database's shape: migrations and models agree, up and down, and a project's own migrations stand beside ours."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from orchestrator.db.migrations import downgrade, list_pending, upgrade, write_merge, write_revision
from orchestrator.db.registration.autogenerate import Linked, diff_workflows, render_revision
from orchestrator.db.session import Database
from orchestrator.db.tables import Base
from orchestrator.db.workflows import Registration, list_workflows
from orchestrator.errors import ConfigurationError
from tests.shipped import SHIPPED

NOWHERE = Path("there-is-none")
REPOSITORY = Path(__file__).resolve().parents[2]
HEAD = max(path.name[:4] for path in (REPOSITORY / "migrations" / "versions").glob("[0-9]*.py"))
"""The newest of the engine's migrations."""


_UNINDEXED = """
SELECT c.conrelid::regclass::text AS holder, c.conname AS name
  FROM pg_constraint c
 WHERE c.contype = 'f' AND NOT EXISTS (
       SELECT FROM pg_index i
        WHERE i.indrelid = c.conrelid AND i.indisvalid
          -- Only values that are not NULL are looked for.
          AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) = (
                SELECT '(' || attname || ' IS NOT NULL)' FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = c.conkey[1]))
          AND (SELECT array_agg(k ORDER BY k) FROM unnest((i.indkey::int2[])[0:cardinality(c.conkey) - 1]) k)
              = (SELECT array_agg(k ORDER BY k) FROM unnest(c.conkey) k))
"""


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Base.metadata))


async def test_the_migrations_make_exactly_what_the_models_say(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_every_foreign_key_has_an_index(database: Database) -> None:
    """Without one, each row that is deleted on the other side reads the whole table."""
    assert await database.pool.fetch(_UNINDEXED) == []
    await database.pool.execute("CREATE TABLE a (b uuid REFERENCES processes, c uuid REFERENCES workflows)")
    await database.pool.execute("CREATE INDEX ON a (b) WHERE c IS NOT NULL")
    found = {row["name"] for row in await database.pool.fetch(_UNINDEXED)}
    assert found == {"a_b_fkey", "a_c_fkey"}, "the question finds them"


async def test_every_migration_can_be_undone_and_done_again(database: Database) -> None:
    assert await downgrade(database.engine, NOWHERE, "base") == []
    tables = await database.pool.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    assert tables == 1, "only Alembic's own table is left"
    assert await list_pending(database.engine, NOWHERE) == [HEAD]
    done = await upgrade(database.engine, NOWHERE)
    assert done.heads == [HEAD]
    assert [revision for revision, _ in done.applied] == sorted(revision for revision, _ in done.applied)
    assert done.applied[-1][0] == HEAD
    assert ("0026", "What the list of schedules is searched by.") in done.applied
    assert await list_pending(database.engine, NOWHERE) == []
    async with database.engine.connect() as connection:
        assert await connection.run_sync(_differences) == []


async def test_an_upgrade_of_an_up_to_date_database_changes_nothing(database: Database) -> None:
    done = await upgrade(database.engine, NOWHERE)
    assert (done.heads, done.applied) == ([HEAD], [])


async def test_a_written_revision_registers_and_removes_workflows(database: Database, tmp_path: Path) -> None:
    """B13: registration in the database is done by migrations, which the difference between code and database writes."""
    project = tmp_path / "migrations"
    both = {
        "create_node": Linked(Registration("create_node", "CREATE", False, "Create a 'node'")),
        "clean": Linked(Registration("clean", "SYSTEM", True, "")),
    }
    one = {"clean": both["clean"]}
    first = _write(project, "register", {}, both)
    await upgrade(database.engine, project)
    assert await _registered(database) == sorted(("clean", "create_node", *SHIPPED))
    async with database.transaction() as session:
        assert both["create_node"].registration in await list_workflows(session)

    _write(project, "remove", both, one)
    await upgrade(database.engine, project)
    assert await _registered(database) == sorted(("clean", *SHIPPED))
    await downgrade(database.engine, project, first)
    assert await _registered(database) == sorted(("clean", "create_node", *SHIPPED))
    await downgrade(database.engine, project, "project@base")
    assert await _registered(database) == sorted(SHIPPED)


def _write(project: Path, message: str, before: dict[str, Linked], after: dict[str, Linked]) -> str:
    code = render_revision(diff_workflows(before, after), diff_workflows(after, before))
    path = write_revision(project, message, upgrades=code[0], downgrades=code[1], imports=code[2])
    return path.name.split("_")[0]


async def _registered(database: Database) -> list[str]:
    async with database.transaction() as session:
        return [one.name for one in await list_workflows(session)]


async def test_a_projects_first_migration_may_be_older_than_the_tables_of_products(
    database: Database, tmp_path: Path
) -> None:
    """On an empty database it then runs before them; what it does to workflows is done all the same."""
    project = tmp_path / "migrations"
    project.mkdir()
    (project / "old.py").write_text(
        "from alembic import op\n"
        "from orchestrator.db.registration import register_product, register_workflow, remove_workflow\n"
        "revision, down_revision, branch_labels, depends_on = 'old', None, ('project',), '0001'\n"
        "def upgrade():\n"
        "    register_workflow(op.get_bind(), name='gone', target='SYSTEM')\n"
        "    register_workflow(op.get_bind(), name='kept', target='SYSTEM')\n"
        "    remove_workflow(op.get_bind(), 'gone')\n"
        "    # products\n"
        "def downgrade(): pass\n"
    )
    await downgrade(database.engine, NOWHERE, "base")
    assert (await upgrade(database.engine, project, ["modify_note"])).heads == [HEAD, "old"]
    assert await _registered(database) == sorted(("kept", *SHIPPED))

    await downgrade(database.engine, project, "base")
    text = (project / "old.py").read_text()
    (project / "old.py").write_text(
        text.replace("# products", "register_product(op.get_bind(), name='Node', product_type='Node')")
    )
    with pytest.raises(ConfigurationError, match=r"old\.py, line 8: the tables of products do not exist yet"):
        await upgrade(database.engine, project)


async def test_a_revision_is_written_for_the_tables_that_there_are_now(database: Database, tmp_path: Path) -> None:
    """Each, not only the first: on an empty database the engine's migrations up to these run before it."""
    project = tmp_path / "migrations"
    paths = [write_revision(project, "first"), write_revision(project, "second")]
    for path in paths:
        assert f"depends_on = '{HEAD}'" in path.read_text().replace('"', "'")
    assert len((await upgrade(database.engine, project)).heads) == 1


async def test_an_empty_revision_has_at_hand_what_a_table_is_written_with(database: Database, tmp_path: Path) -> None:
    path = write_revision(tmp_path / "migrations", "racks")
    table = "op.create_table('racks', sa.Column('number', sa.Integer(), primary_key=True))"
    path.write_text(path.read_text().replace("pass", table, 1))
    await upgrade(database.engine, path.parent)
    assert await database.pool.fetch("SELECT number FROM racks") == []


async def test_the_plain_alembic_command_links_default_workflows_too(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """B22."""
    versions = REPOSITORY / "migrations" / "versions"
    (tmp_path / "alembic.ini").write_text(
        f"[alembic]\nscript_location = {REPOSITORY / 'migrations'}\npath_separator = newline\n"
        f"version_locations =\n    {versions}\n    {tmp_path / 'project'}\n"
    )
    write_revision(
        tmp_path / "project",
        "a product",
        upgrades="register_product(op.get_bind(), name='Node', product_type='Node')",
        downgrades="remove_product(op.get_bind(), 'Node')",
        imports="from orchestrator.db.registration import register_product, remove_product",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    environment = kept | {
        "ORCHESTRATOR_DATABASE_URL": database_url,
        "ORCHESTRATOR_AMQP_URL": "amqp://nobody@nowhere",
        "PYTHONPATH": str(REPOSITORY),
    }
    linked = "SELECT w.name FROM products_workflows JOIN workflows w USING (workflow_id)"
    for arguments, found in ((("upgrade", "heads"), ["modify_note"]), (("downgrade", "project@base"), [])):
        await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "alembic", *arguments],
            cwd=tmp_path,
            env=environment,
            check=True,
            capture_output=True,
        )
        assert [row["name"] for row in await database.pool.fetch(linked)] == found


async def test_a_wrong_project_migration_changes_nothing_and_is_named(database: Database, tmp_path: Path) -> None:
    project = tmp_path / "migrations"
    write_revision(project, "wrong", upgrades="op.execute('CREATE TABLE mine (x int)')\n    op.execute('NONSENSE')")
    with pytest.raises(ConfigurationError, match=r"_wrong\.py, line \d+: .*NONSENSE"):
        await upgrade(database.engine, project)
    assert await database.pool.fetchval("SELECT to_regclass('mine')") is None


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("40P01", "; nothing has changed: run it again"),
        ("40001", "; nothing has changed: run it again"),
        ("55P03", "; nothing has changed: run it again"),
        ("23505", ""),
        ("22000", ""),
    ],
)
async def test_whatever_the_database_refuses_is_one_line_that_names_the_migration(
    database: Database, tmp_path: Path, state: str, advice: str
) -> None:
    project = tmp_path / "migrations"
    message = f"RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = 'too bad', DETAIL = 'in detail'"
    path = write_revision(project, "refused", upgrades=f'op.execute("DO $$ BEGIN {message}; END $$")')
    with pytest.raises(ConfigurationError) as caught:
        await upgrade(database.engine, project)
    assert re.fullmatch(
        rf"the database cannot be migrated: {path.name}, line \d+: too bad DETAIL: in detail{re.escape(advice)}",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    pass", "    nonsense()", "NameError: name 'nonsense' is not defined"),
        ("    pass", "    raise SystemExit('enough')", "SystemExit: enough"),
        ("    pass", "    open('nowhere')", "FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"),
        ("from alembic", "import nowhere\nfrom alembic", "ModuleNotFoundError: No module named 'nowhere'"),
        ("from alembic", "def (:\nfrom alembic", "SyntaxError: invalid syntax"),
    ],
)
async def test_whatever_a_projects_migration_raises_is_one_line_with_its_place(
    database: Database, tmp_path: Path, old: str, new: str, told: str
) -> None:
    project = tmp_path / "migrations"
    path = write_revision(project, "mistaken")
    path.write_text(path.read_text().replace(old, new, 1))
    line = path.read_text().splitlines().index(new.splitlines()[0]) + 1
    with pytest.raises(ConfigurationError) as caught:
        await upgrade(database.engine, project)
    assert str(caught.value) == f"the database cannot be migrated: {path.name}, line {line}: {told}"
    if old == "from alembic":
        for message in (await _refused(list_pending(database.engine, project)), _refused_write(project)):
            assert message.endswith(f": {path.name}, line {line}: {told}")


async def _refused(call: Awaitable[object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        await call
    return str(caught.value)


def _refused_write(project: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        write_revision(project, "another")
    return str(caught.value)


async def test_a_revision_that_is_not_found_is_reported_with_the_folder_that_was_searched(
    database: Database, tmp_path: Path
) -> None:
    """The database of another project, or another folder than before, is the usual reason."""
    project = tmp_path / "migrations"
    path = write_revision(project, "mine")
    await upgrade(database.engine, project)
    name = path.name.split("_")[0]
    missing = tmp_path / "typo"
    for folder, told in (
        (tmp_path, f"the database is at revision {name}, which this program does not know"),
        (missing, f"Can't locate revision identified by '{name}' in {missing}, a folder that does not exist, or among"),
    ):
        for refused in (
            await _refused(upgrade(database.engine, folder)),
            await _refused(list_pending(database.engine, folder)),
        ):
            assert told in refused
            assert "is ORCHESTRATOR_MIGRATIONS the folder of this project's migrations, and" in refused
    told = await _refused(downgrade(database.engine, project, "nonsense"))
    assert f"Can't locate revision identified by 'nonsense' in {project} or " in told


async def test_two_ends_of_a_projects_migrations_are_named_and_joined(database: Database, tmp_path: Path) -> None:
    """As after merging two branches of the project's repository, each with a migration."""
    project = tmp_path / "migrations"
    first = write_revision(project, "first")
    with pytest.raises(ConfigurationError, match=f"nothing to join: .* have one head, {first.name.split('_')[0]}"):
        write_merge(project, "too early")
    left = write_revision(project, "left")
    aside = left.rename(tmp_path / left.name)
    right = write_revision(project, "right")
    aside.rename(left)
    ends = sorted(path.name.split("_")[0] for path in (left, right))
    told = _refused_write(project)
    assert f"have 2 heads, {ends[0]} and {ends[1]}, because" in told
    assert "orchestrator db merge" in told

    joined = write_merge(project, "left and right").name.split("_")[0]

    assert (await upgrade(database.engine, project)).heads == [joined]
    last = write_revision(project, "last").name.split("_")[0]
    assert (await upgrade(database.engine, project)).heads == [last]
    told = await _refused(downgrade(database.engine, project, "project@-3"))
    assert (
        f"'project@-3' leaves open how to go back, because on the way stands {joined}, which joins {ends[0]} and"
        in told
    )
    assert f"orchestrator db downgrade {ends[0]}" in told
    assert await downgrade(database.engine, project, "project@-1") == [joined]
    # Undoing the merge alone leaves both that it has joined.
    assert await downgrade(database.engine, project, "project@-1") == ends
    told = await _refused(downgrade(database.engine, project, "project@-1"))
    assert f"because the database has {ends[0]} and {ends[1]} there" in told
    assert (await upgrade(database.engine, project)).heads == [last]
    assert await downgrade(database.engine, project, "project@-2") == ends
    begun = first.name.split("_")[0]
    assert await downgrade(database.engine, project, begun) == [begun]
    assert (await upgrade(database.engine, project)).heads == [last]
    assert await downgrade(database.engine, project, "project@base") == [HEAD]


async def test_two_first_migrations_are_one_line_that_says_how_to_put_them_in_order(
    database: Database, tmp_path: Path
) -> None:
    project = tmp_path / "migrations"
    one = write_revision(project, "one")
    aside = one.rename(tmp_path / one.name)
    other = write_revision(project, "other")
    aside.rename(one)
    for told in (
        await _refused(list_pending(database.engine, project)),
        await _refused(upgrade(database.engine, project)),
        _refused_write(project),
    ):
        assert re.search(r": Branch name 'project' in revision \w+ already used by revision \w+: both are first", told)
    name = other.name.split("_")[0]
    text = one.read_text().replace("down_revision = None", f"down_revision = {name!r}")
    one.write_text(text.replace("branch_labels = ('project',)", "branch_labels = None"))
    assert (await upgrade(database.engine, project)).heads == [one.name.split("_")[0]]


async def test_what_the_database_refuses_at_the_commit_is_reported_too(database: Database, tmp_path: Path) -> None:
    project = tmp_path / "migrations"
    write_revision(
        project,
        "late",
        upgrades="op.execute('CREATE TABLE mine (x int PRIMARY KEY, y int REFERENCES mine DEFERRABLE INITIALLY DEFERRED)')\n"
        "    op.execute('INSERT INTO mine VALUES (1, 2)')",
    )
    with pytest.raises(
        ConfigurationError, match=r"the database cannot be migrated: .* violates foreign key constraint"
    ):
        await upgrade(database.engine, project)


async def test_the_log_cannot_be_rewritten(database: Database) -> None:
    """B7: no attempt is overwritten: the table refuses updates."""
    async with database.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO engine_settings_log (global_lock, author) VALUES (true, 'somebody')",
        )
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute("UPDATE engine_settings_log SET author = 'somebody else'")
