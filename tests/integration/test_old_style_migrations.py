"""Migrations written for orchestrator-core run with other imports only: dicts of products and blocks, lists of workflows."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.db.migrations import downgrade, upgrade
from orchestrator.db.registration.catalogue import CatalogueBlock, read_catalogue, read_links
from orchestrator.db.session import Database
from orchestrator.db.workflows import list_workflows
from orchestrator.migrations import helpers
from tests.integration.migrating import Migration, subscribe, with_products
from tests.shipped import SHIPPED

HEAD = """
revision = "a00000000001"
down_revision = None
branch_labels = ("data",)
depends_on = "0002"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
"""

RACKS = """
from uuid import uuid4

from alembic import op

from orchestrator.migrations.helpers import create, create_workflow, delete, delete_workflow, ensure_default_workflows
from orchestrator.targets import Target

revision = "a00000000002"
down_revision = "a00000000001"
branch_labels = None
depends_on = None

new_products = {
    "products": {
        "rack 42U": {
            "product_id": "3f4e0a6e-4d0b-4f0f-9a3c-2f1d7b9d6a01",
            "product_type": "Rack",
            "description": "A rack",
            "tag": "RACK",
            "status": "active",
            "product_blocks": ["Rack", "Shelf"],
            "fixed_inputs": {"units": "42"},
        },
        "rack 21U": {
            "product_id": uuid4(),
            "product_type": "Rack",
            "description": "Half a rack",
            "tag": "RACK",
            "status": "active",
            "root_product_block": "Rack",
            "fixed_inputs": {"units": ("21", uuid4())},
        },
    },
    "product_blocks": {
        "Rack": {
            "product_block_id": uuid4(),
            "description": "rack block",
            "tag": "RACK",
            "status": "active",
            "resources": {"rack_name": "Name of the rack", "ims_id": "Its id in the inventory"},
            "depends_on_block_relations": ["Shelf"],
        },
        "Shelf": {
            "product_block_id": uuid4(),
            "description": "shelf block",
            "tag": "SHELF",
            "status": "active",
            "resources": {"ims_id": "Its id in the inventory", "height": ("In units", uuid4())},
        },
    },
    "workflows": {},
}

new_workflows = [
    {"name": "create_rack", "target": Target.CREATE, "description": "Create rack", "product_type": "Rack"},
    {"name": "modify_rack", "target": Target.MODIFY, "description": "Modify rack", "product_type": "Rack"},
    {"name": "validate_rack", "target": Target.SYSTEM, "description": "Validate rack", "product_type": "Rack"},
]


def upgrade() -> None:
    conn = op.get_bind()
    create(conn, new_products)
    for workflow in new_workflows:
        create_workflow(conn, workflow)
    ensure_default_workflows(conn)


def downgrade() -> None:
    conn = op.get_bind()
    for workflow in new_workflows:
        delete_workflow(conn, workflow["name"])
    delete(conn, new_products)
"""

TASKS = """
import sqlalchemy as sa
from alembic import op

from orchestrator.migrations.helpers import create_task, delete_workflow
from orchestrator.targets import Target

revision = "a00000000003"
down_revision = "a00000000002"
branch_labels = None
depends_on = None

task = {"name": "task_count_racks", "target": Target.SYSTEM, "description": "Count racks"}


def upgrade() -> None:
    conn = op.get_bind()
    conn.execute(
        sa.text("INSERT INTO workflows(name, target, description) VALUES (:name, :target, :description) ON CONFLICT DO NOTHING"),
        task,
    )
    conn.execute(sa.text("UPDATE workflows SET target = 'VALIDATE' WHERE name LIKE 'validate_%'"))
    conn.execute(sa.text("UPDATE workflows SET is_task = TRUE WHERE target IN ('SYSTEM', 'VALIDATE')"))
    create_task(conn, {"name": "task_dust_racks", "description": "Dust racks"})


def downgrade() -> None:
    conn = op.get_bind()
    delete_workflow(conn, "task_dust_racks")
    delete_workflow(conn, "task_count_racks")
"""


def write(project: Path, *files: str) -> None:
    for number, content in enumerate(files):
        (project / f"{number}_old.py").write_text(content)


async def test_old_migrations_run_with_other_imports_only_and_can_be_undone(database: Database, tmp_path: Path) -> None:
    write(tmp_path, HEAD, RACKS, TASKS)

    await upgrade(database.engine, tmp_path)

    async with database.transaction() as session:
        catalogue, links = await read_catalogue(session), await read_links(session)
        workflows = {one.name: one for one in await list_workflows(session) if one.name not in SHIPPED}
    large, small = catalogue.products["rack 42U"], catalogue.products["rack 21U"]
    assert (large.product_type, large.tag, large.description) == ("Rack", "RACK", "A rack")
    assert (large.fixed_inputs, small.fixed_inputs) == ({"units": "42"}, {"units": "21"})
    assert set(large.blocks) == {"Rack", "Shelf"}
    assert set(small.blocks) == {"Rack"}
    assert catalogue.blocks["Rack"] == CatalogueBlock(
        "Rack", "rack block", "RACK", frozenset({"rack_name", "ims_id"}), frozenset({"Shelf"})
    )
    assert {(name, one.target, one.is_task) for name, one in workflows.items()} == {
        ("create_rack", "CREATE", False),
        ("modify_rack", "MODIFY", False),
        ("validate_rack", "VALIDATE", True),
        ("task_count_racks", "SYSTEM", True),
        ("task_dust_racks", "SYSTEM", True),
    }
    for name in ("create_rack", "modify_rack", "validate_rack", "modify_note"):
        assert links[name] == {"rack 42U", "rack 21U"}, name
    found = await database.pool.fetchrow(
        "SELECT product_id, (SELECT description FROM resource_types WHERE resource_type = 'height') AS height FROM products"
        " WHERE name = 'rack 42U'"
    )
    assert found is not None
    assert tuple(found) == (UUID("3f4e0a6e-4d0b-4f0f-9a3c-2f1d7b9d6a01"), "In units"), "ids and descriptions are kept"

    await downgrade(database.engine, tmp_path, "data@base")

    async with database.transaction() as session:
        after = await read_catalogue(session)
        assert {one.name for one in await list_workflows(session)} == set(SHIPPED)
    assert (after.products, after.blocks, after.idle_types) == ({}, {}, {})


async def test_what_is_registered_already_is_left_alone_and_what_is_not_there_is_not_removed(
    database: Database,
) -> None:
    migration = await with_products(database)
    await migration(helpers.ensure_default_workflows)
    before = await _read(database)
    node = {"products": {"Node P": {"product_type": "Other"}}, "product_blocks": {"Node": {"description": "other"}}}

    await migration(
        lambda c: helpers.create(c, node),
        lambda c: helpers.create_workflow(c, {"name": "modify_note", "target": "SYSTEM"}),
        lambda c: helpers.delete(
            c, {"products": ["none"], "product_blocks": ["none"], "resource_types": ["none"], "workflows": ["none"]}
        ),
    )

    assert await _read(database) == before


async def test_what_subscriptions_hold_is_not_deleted(database: Database) -> None:
    migration = await with_products(database)
    await subscribe(migration, "Node P", {"Node": {"node_name": "ams1"}})

    assert "has subscriptions (1)" in await migration.refused(lambda c: helpers.delete_product(c, "Node P"))
    assert "subscriptions have such blocks" in await migration.refused(
        lambda c: helpers.delete_product_block(c, "Node")
    )
    assert "subscriptions hold values" in await migration.refused(
        lambda c: helpers.delete_resource_type(c, "node_name")
    )


async def test_workflows_are_linked_by_tag_and_by_the_name_of_products(database: Database) -> None:
    migration = Migration(database)
    products = {
        name: {"product_type": "Line", "tag": "LINE", "description": None} for name in ("line fast", "line slow")
    }
    workflow = {"target": "CREATE", "description": "", "tag": "LINE", "search_phrase": "%fast"}

    def link(connection: Connection) -> None:
        helpers.create(connection, {"products": products, "workflows": {"create_line": workflow}})
        helpers.add_products_to_workflow_by_product_tag(connection, "modify_note", "LINE", "%slow")
        helpers.remove_products_from_workflow_by_product_tag(connection, "modify_note", "LINE", "%fast")

    await migration(link)

    async with database.transaction() as session:
        links = await read_links(session)
    assert links["create_line"] == {"line fast"}
    assert links["modify_note"] == {"line slow"}


async def test_ids_are_found_by_names_and_relations_made_by_ids(database: Database) -> None:
    migration = await with_products(database)

    def relate(connection: Connection) -> None:
        helpers.create_product_blocks(connection, {"Shelf": {}})
        shelf, node = (helpers.get_product_block_id_by_name(connection, name) for name in ("Shelf", "Node"))
        helpers.add_product_block_relation_between_products_by_id(connection, str(node), shelf)
        helpers.create_fixed_inputs(connection, helpers.get_product_id_by_name(connection, "Node P"), {"units": 3})
        assert helpers.get_product_id_by_name(connection, "Node P") in helpers.get_product_ids_by_product_type(
            connection, "Node"
        )
        assert helpers.has_table_column("workflows", "is_task", connection)
        assert not helpers.has_table_column("workflows", "colour", connection)

    await migration(relate)

    async with database.transaction() as session:
        catalogue = await read_catalogue(session)
    assert "Shelf" in catalogue.blocks["Node"].depends_on
    assert catalogue.products["Node P"].fixed_inputs["units"] == "3"


async def _read(database: Database) -> tuple[object, object]:
    async with database.transaction() as session:
        return await read_catalogue(session), await list_workflows(session)
