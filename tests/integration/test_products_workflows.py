"""Which workflows a product has: one of each kind but MODIFY, and the default ones. B12, B21, B22."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from orchestrator.db import registration as register
from orchestrator.db.migrations import upgrade
from orchestrator.db.session import Database
from orchestrator.db.tables import SINGLE_TARGETS
from orchestrator.errors import ConfigurationError
from tests.integration.migrating import Migration, links_of, with_products
from tests.integration.test_migrations import NOWHERE
from tests.shipped import SHIPPED

Call = Callable[[Connection], Any]


@pytest.fixture
async def migration(database: Database) -> Migration:
    return await with_products(database)


# workflows and products


@pytest.mark.parametrize("target", SINGLE_TARGETS)
async def test_a_second_workflow_of_a_kind_is_refused_by_name_and_by_the_database(
    migration: Migration, target: str
) -> None:
    """B21: one create, terminate, validate and reconcile workflow per product; the error names both."""
    await migration(
        lambda c: register.register_workflow(c, name="first", target=target, product_type="Node"),
        lambda c: register.register_workflow(c, name="second", target=target, products=["Link"]),
    )
    told = (
        f"the product 'Node PE' would have two {target} workflows, 'first' and 'second', but may have one at most: unlink"
        " or remove one of them first"
    )
    assert await migration.refused(lambda c: register.link_workflow(c, "second", ["Link", "Node PE"])) == told
    third = await migration.refused(
        lambda c: register.register_workflow(c, name="third", target=target, products=["Node P", "Node PE"])
    )
    assert "the product 'Node P' would have two" in third
    assert "'first' and 'third'" in third
    assert "'first' and 'second'" in await migration.refused(
        lambda c: register.register_product(c, name="New", product_type="New", workflows=["first", "second"])
    )
    with pytest.raises(IntegrityError, match="uq_products_workflows_single"):
        await migration(
            lambda c: c.execute(
                text(
                    "INSERT INTO products_workflows SELECT product_id, workflow_id, target FROM products, workflows"
                    " WHERE products.name = 'Node PE' AND workflows.name = 'second'"
                )
            )
        )


async def test_the_database_refuses_a_link_whose_target_is_not_the_workflows(migration: Migration) -> None:
    """B21: nobody gets around the index by writing another target into the link."""
    with pytest.raises(IntegrityError, match="fk_products_workflows_workflow_id"):
        await migration(
            lambda c: c.execute(
                text(
                    "INSERT INTO products_workflows SELECT product_id, workflow_id, 'CREATE' FROM products, workflows"
                    " WHERE workflows.name = 'modify_note'"
                )
            )
        )


async def test_a_product_has_any_number_of_modify_workflows(migration: Migration) -> None:
    """B21."""
    await migration(
        *(
            lambda c, name=name: register.register_workflow(c, name=name, target="MODIFY", products=["Link"])
            for name in ("one", "two", "three")
        )
    )
    assert await links_of(migration) == {"one": {"Link"}, "two": {"Link"}, "three": {"Link"}}


async def test_a_removed_workflow_makes_room_for_its_successor(migration: Migration) -> None:
    await migration(
        lambda c: register.register_workflow(c, name="create_node", target="CREATE", product_type="Node"),
        lambda c: register.remove_workflow(c, "create_node"),
        lambda c: register.register_workflow(c, name="create_router", target="CREATE", product_type="Node"),
    )
    assert await links_of(migration) == {"create_router": {"Node P", "Node PE"}}
    await migration(
        lambda c: register.unlink_workflow(c, "create_router", ["Node P", "Link"]),
        lambda c: register.register_workflow(c, name="create_node", target="CREATE", products=["Node P"]),
        lambda c: register.link_workflow(c, "create_node", ["Node P"]),
    )
    assert await links_of(migration) == {"create_router": {"Node PE"}, "create_node": {"Node P"}}


async def test_tasks_are_registered_as_tasks(migration: Migration) -> None:
    """B12: a task has no product, unless it validates the subscriptions of some."""
    await migration(
        lambda c: register.register_task(c, name="clean_up", description="Clean up"),
        lambda c: register.register_task(c, name="check", target="VALIDATE"),
        lambda c: register.register_workflow(c, name="validate_node", target="VALIDATE", product_type="Node"),
        lambda c: register.link_workflow(c, "check", ["Link"]),
    )
    rows = await migration.rows("SELECT name, target, is_task FROM workflows WHERE is_task ORDER BY name")
    assert [row for row in rows if row[0] not in SHIPPED] == [
        ("check", "VALIDATE", True),
        ("clean_up", "SYSTEM", True),
        ("validate_node", "VALIDATE", True),
    ]
    assert "belongs to no product" in await migration.refused(lambda c: register.link_workflow(c, "clean_up", ["Link"]))


# default workflows


async def test_the_note_of_every_product_can_be_modified(migration: Migration) -> None:
    """B22: ``modify_note`` ships; every upgrade links it to all products, those that came since included."""
    await upgrade(migration.database.engine, NOWHERE, ["modify_note"])
    assert await links_of(migration) == {"modify_note": {"Node P", "Node PE", "Link"}}
    await migration(lambda c: register.register_product(c, name="Later", product_type="Later"))
    await upgrade(migration.database.engine, NOWHERE, ["modify_note"])
    assert await links_of(migration) == {"modify_note": {"Node P", "Node PE", "Link", "Later"}}


async def test_a_default_workflow_is_linked_once_a_migration_has_registered_it(migration: Migration) -> None:
    """B22."""
    await upgrade(migration.database.engine, NOWHERE, ["audit", "modify_note"])
    assert set(await links_of(migration)) == {"modify_note"}
    await migration(lambda c: register.register_default_workflow(c, name="audit", description="Audit"))
    every = {"Node P", "Node PE", "Link"}
    assert await links_of(migration) == {"modify_note": every, "audit": every}
    await migration(lambda c: register.register_product(c, name="Later", product_type="Later"))
    await upgrade(migration.database.engine, NOWHERE, ["audit"])
    assert await links_of(migration) == {"modify_note": every, "audit": every | {"Later"}}


async def test_default_workflows_are_one_per_kind_too(migration: Migration) -> None:
    """B21, B22: the error names both, and nothing of the upgrade stays."""
    await migration(
        lambda c: register.register_workflow(c, name="terminate_node", target="TERMINATE", products=["Node P"]),
        lambda c: register.register_workflow(c, name="terminate", target="TERMINATE"),
        lambda c: register.register_workflow(c, name="end", target="TERMINATE"),
        lambda c: register.register_task(c, name="clean_up"),
    )
    for defaults, told in (
        (
            ["modify_note", "terminate"],
            (
                "DEFAULT_PRODUCT_WORKFLOWS names 'terminate', but the product 'Node P' would have two TERMINATE workflows,"
                " 'terminate_node' and 'terminate'"
            ),
        ),
        (["clean_up"], "DEFAULT_PRODUCT_WORKFLOWS names 'clean_up', but 'clean_up' has the target SYSTEM"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            await upgrade(migration.database.engine, NOWHERE, defaults)
        assert told in str(caught.value)
    await migration(lambda c: register.remove_workflow(c, "terminate_node"))
    with pytest.raises(ConfigurationError, match="TERMINATE workflows, 'terminate' and 'end'"):
        await upgrade(migration.database.engine, NOWHERE, ["modify_note", "terminate", "end"])
    assert await links_of(migration) == {}
