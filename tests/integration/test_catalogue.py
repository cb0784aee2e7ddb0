"""Products, blocks, workflows and their links, as migrations register them. B23."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from orchestrator.db import registration as register
from orchestrator.db.registration.catalogue import CatalogueBlock, CatalogueProduct, read_catalogue
from orchestrator.db.session import Database
from tests.integration.migrating import Migration, subscribe, with_products
from tests.shipped import SHIPPED

Call = Callable[[Connection], Any]


@pytest.fixture
async def migration(database: Database) -> Migration:
    return await with_products(database)


async def test_what_is_registered_is_what_the_database_has(migration: Migration) -> None:
    async with migration.database.transaction() as session:
        found = await read_catalogue(session)
    assert found.products["Node P"] == CatalogueProduct(
        "Node P",
        "Node",
        "A provider's router",
        "NODE",
        {"role": "P", "ports": "8", "managed": "True"},
        frozenset({"Node"}),
    )
    assert found.blocks == {
        "Port": CatalogueBlock("Port", "", "", frozenset({"speed", "vlan"})),
        "Node": CatalogueBlock(
            "Node", "A router", "NODE", frozenset({"node_name", "ims_id"}), frozenset({"Port", "Node"})
        ),
    }
    assert found.idle_types == {}


WRONG: dict[str, tuple[Call, str]] = {
    "the name of a product is taken": (
        lambda c: register.register_product(c, name="Link", product_type="Link"),
        "the database has a product 'Link' already",
    ),
    "a product without a name": (
        lambda c: register.register_product(c, name=" ", product_type="Link"),
        "a product needs a name of printable characters, not ' '",
    ),
    "a product without a type": (
        lambda c: register.register_product(c, name="New", product_type=""),
        "a product type needs a name",
    ),
    "a product of an unknown block": (
        lambda c: register.register_product(c, name="New", product_type="New", product_blocks=["Nod"]),
        "the database has no product block 'Nod' (known: Node, Port): register_product_block must come first",
    ),
    "a product with an unknown workflow": (
        lambda c: register.register_product(c, name="New", product_type="New", workflows=["create"]),
        f"the database has no workflow 'create' (known: {', '.join(SHIPPED)}): register_workflow must come first",
    ),
    "blocks that are one text": (
        lambda c: register.register_product(c, name="New", product_type="New", product_blocks="Node"),
        "product_blocks is a list of names, such as product_blocks=[\"one\"], not 'Node'",
    ),
    "a fixed input that is a list": (
        lambda c: register.register_product(c, name="New", product_type="New", fixed_inputs={"role": ["P"]}),
        "the value of the fixed input 'role' of 'New' is a text, a number or a truth value, not ['P']",
    ),
    "fixed inputs that are a list": (
        lambda c: register.set_fixed_inputs(c, "Link", ["role"]),  # type: ignore[arg-type]
        "the fixed inputs of 'Link' are a dict of names and values",
    ),
    "a fixed input that is not there": (
        lambda c: register.remove_fixed_inputs(c, "Node P", ["speed"]),
        "the product 'Node P' has no fixed input 'speed'",
    ),
    "an unknown product": (lambda c: register.retire_product(c, "Nodes"), "the database has no product 'Nodes'"),
    "a product's new name is taken": (
        lambda c: register.rename_product(c, "Node P", "Link"),
        "the database has a product 'Link' already",
    ),
    "a block that a product lacks": (
        lambda c: register.remove_product_blocks(c, "Link", ["Node"]),
        "the product 'Link' has no block 'Node'",
    ),
    "the name of a block is taken": (
        lambda c: register.register_product_block(c, name="Node"),
        "the database has a product block 'Node' already",
    ),
    "a block that refers to an unknown one": (
        lambda c: register.register_product_block(c, name="New", depends_on=["Old"]),
        "the database has no product block 'Old'",
    ),
    "a block that a product has": (
        lambda c: register.remove_product_block(c, "Node"),
        "the product block 'Node' is part of 'Node P', 'Node PE': take it out there first",
    ),
    "a block that another has": (
        lambda c: register.remove_product_block(c, "Port"),
        "the product block 'Port' is part of 'Node'",
    ),
    "a relation that is not there": (
        lambda c: register.remove_block_relations(c, "Port", ["Node"]),
        "the product block 'Port' does not refer to 'Node'",
    ),
    "a resource type that a block lacks": (
        lambda c: register.remove_resource_types(c, "Port", ["ims_id"]),
        "the product block 'Port' has no resource type 'ims_id'",
    ),
    "an unknown resource type": (
        lambda c: register.remove_resource_type(c, "ims"),
        "the database has no resource type 'ims'",
    ),
    "the name of a resource type is taken": (
        lambda c: register.register_resource_type(c, "vlan"),
        "the database has a resource type 'vlan' already",
    ),
    "a resource type's new name is taken": (
        lambda c: register.rename_resource_type(c, "vlan", "speed"),
        "the database has a resource type 'speed' already",
    ),
    "the new name of what a block lacks": (
        lambda c: register.rename_resource_type(c, "ims_id", "id", block="Port"),
        "the product block 'Port' has no resource type 'ims_id' (it has speed, vlan)",
    ),
    "a new name in a block that is the old one": (
        lambda c: register.rename_resource_type(c, "vlan", "vlan", block="Port"),
        "the resource type 'vlan' has that name already",
    ),
    "values that are neither refused nor dropped": (
        lambda c: register.remove_resource_type(c, "vlan", values="keep"),  # type: ignore[arg-type]
        "values is 'refuse' or 'drop', not 'keep'",
    ),
    "filling in what a block lacks": (
        lambda c: register.fill_values(c, "Port", {"ims_id": 1}),
        "the product block 'Port' has no resource type 'ims_id' (it has speed, vlan): add_resource_types must come first",
    ),
    "filling in nothing": (
        lambda c: register.fill_values(c, "Port", {"vlan": None}),
        "a missing value of 'vlan' in 'Port' cannot be filled with nothing",
    ),
    "the name of a workflow is taken": (
        lambda c: register.register_workflow(c, name="modify_note", target="MODIFY"),
        "the database has a workflow 'modify_note' already",
    ),
    "an unknown target": (
        lambda c: register.register_workflow(c, name="new", target="CHANGE"),
        "the target of the workflow 'new' is one of CREATE, MODIFY, TERMINATE, SYSTEM, VALIDATE, RECONCILE, not 'CHANGE'",
    ),
    "products and a type": (
        lambda c: register.register_workflow(c, name="new", target="MODIFY", products=["Link"], product_type="Link"),
        "the workflow 'new' gets either products or a product_type, not both",
    ),
    "an unknown type": (
        lambda c: register.register_workflow(c, name="new", target="MODIFY", product_type="Node P"),
        "the database has no product of the type 'Node P' for the workflow 'new' (types: Link, Node)",
    ),
    "an unknown product of a workflow": (
        lambda c: register.register_workflow(c, name="new", target="MODIFY", products=["Link", "Lynk"]),
        "the database has no product 'Lynk'",
    ),
    "a task of a product": (
        lambda c: register.register_workflow(c, name="new", target="SYSTEM", is_task=True, products=["Link"]),
        "'new' has the target SYSTEM and so belongs to no product",
    ),
    "a task that modifies": (
        lambda c: register.register_task(c, name="new", target="MODIFY"),
        "the task 'new' is for SYSTEM or VALIDATE, not 'MODIFY': use register_workflow",
    ),
    "removing an unknown workflow": (
        lambda c: register.remove_workflow(c, "old"),
        f"the database has no workflow 'old' (known: {', '.join(SHIPPED)})",
    ),
    "linking an unknown workflow": (
        lambda c: register.link_workflow(c, "old", ["Link"]),
        "the database has no workflow 'old'",
    ),
    "unlinking from an unknown product": (
        lambda c: register.unlink_workflow(c, "modify_note", ["Lynk"]),
        "the database has no product 'Lynk'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_cannot_be_is_refused_with_a_reason_and_changes_nothing(migration: Migration, case: str) -> None:
    call, told = WRONG[case]
    async with migration.database.transaction() as session:
        before = await read_catalogue(session)

    assert told in await migration.refused(call)

    async with migration.database.transaction() as session:
        assert await read_catalogue(session) == before


async def test_a_product_changes_over_its_life(migration: Migration) -> None:
    await migration(
        lambda c: register.set_fixed_inputs(c, "Node P", {"role": "PE", "speed": "10"}),
        lambda c: register.remove_fixed_inputs(c, "Node P", ["managed"]),
        lambda c: register.add_product_blocks(c, "Node P", ["Port", "Node"]),
        lambda c: register.remove_product_blocks(c, "Node P", ["Node"]),
        lambda c: register.rename_product(c, "Node P", "Router"),
        lambda c: register.retire_product(c, "Router"),
        lambda c: register.rename_product_block(c, "Port", "Interface"),
        lambda c: register.remove_block_relations(c, "Node", ["Node"]),
    )
    async with migration.database.transaction() as session:
        found = await read_catalogue(session)
    assert found.products["Router"] == CatalogueProduct(
        "Router",
        "Node",
        "A provider's router",
        "NODE",
        {"role": "PE", "ports": "8", "speed": "10"},
        frozenset({"Interface"}),
        retired=True,
    )
    assert found.blocks["Node"].depends_on == {"Interface"}
    ended = "SELECT status, end_date IS NOT NULL FROM products WHERE name = 'Router'"
    assert await migration.rows(ended) == [("end_of_life", True)]
    await migration(lambda c: register.reinstate_product(c, "Router"))
    assert await migration.rows(ended) == [("active", False)]


async def test_a_product_with_subscriptions_is_retired_instead_of_removed(migration: Migration) -> None:
    await subscribe(migration, "Node P")
    assert await migration.refused(lambda c: register.remove_product(c, "Node P")) == (
        "the product 'Node P' has subscriptions (1), terminated ones included, so it cannot be removed: retire_product"
        " lets no new ones be made"
    )
    await migration(lambda c: register.remove_product(c, "Node PE"))
    assert await migration.rows("SELECT name FROM products ORDER BY name") == [("Link",), ("Node P",)]


async def test_a_block_in_subscriptions_is_not_removed(migration: Migration) -> None:
    await subscribe(migration, "Link", {"Port": {}})
    await migration(lambda c: register.remove_block_relations(c, "Node", ["Port"]))
    assert "subscriptions have such blocks (1)" in await migration.refused(
        lambda c: register.remove_product_block(c, "Port")
    )


async def test_with_the_last_block_that_holds_it_a_resource_type_goes(migration: Migration) -> None:
    await migration(
        lambda c: register.register_resource_type(c, "comment", "What people say"),
        lambda c: register.add_resource_types(c, "Port", ["comment", "ims_id"]),
        lambda c: register.remove_resource_types(c, "Node", ["ims_id"]),
        lambda c: register.remove_block_relations(c, "Node", ["Port"]),
    )
    every = "SELECT resource_type FROM resource_types ORDER BY 1"
    assert await migration.rows(every) == [("comment",), ("ims_id",), ("node_name",), ("speed",), ("vlan",)]
    await migration(lambda c: register.remove_product_block(c, "Port"))
    assert await migration.rows(every) == [("node_name",)]
    await migration(lambda c: register.remove_resource_type(c, "node_name"))
    assert await migration.rows(every) == []
