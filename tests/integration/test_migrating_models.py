"""B21, B22, B23: from the code's products and workflows to the database's, by the real commands, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.db.registration.catalogue import (
    Catalogue,
    CatalogueBlock,
    CatalogueProduct,
    read_catalogue,
    read_links,
)
from orchestrator.db.session import Database
from tests.integration.cli_servers import Cli, project

MODELS = '''
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle


class Role(StrEnum):
    P = "P"
    PE = "PE"


class PortBlockInactive(ProductBlockModel, product_block_name="Port"):
    """Where a cable goes in.

    More about it.
    """

    speed: int | None = None


class PortBlock(PortBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    speed: int


class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
    node_name: str | None = None
    ims_id: int | None = None
    ports: list[PortBlockInactive]


class NodeBlock(NodeBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A router."""

    node_name: str
    ports: list[PortBlock]


class NodeInactive(SubscriptionModel, is_base=True):
    """A router of ours."""

    role: Role
    kind: Literal["router"]
    owner: str | None = None
    size: int | None = None
    site: str = "Amsterdam"
    node: NodeBlockInactive


class Node(NodeInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    size: Annotated[int, Field(le=5)] | None = None
    node: NodeBlock


SUBSCRIPTION_MODEL_REGISTRY.update({"Node P": Node, "Node PE": Node})
'''
ROLES = ("--fixed-input", "Node P:role=P", "--fixed-input", "Node PE:role=PE")
CHANGED = MODELS.replace("    ims_id: int | None = None\n", "    site_id: int | None = None\n").replace(
    '"Node PE": Node', '"Core": Node'
)


@pytest.fixture
def cli(database_url: str, amqp_url: str, tmp_path: Path) -> Cli:
    made = project(tmp_path, database_url, amqp_url)
    (tmp_path / "flows.py").write_text(MODELS)
    return made


async def stored(database: Database) -> Catalogue:
    async with database.transaction() as session:
        return await read_catalogue(session)


async def links(database: Database) -> dict[str, set[str]]:
    async with database.transaction() as session:
        return {name: set(products) for name, products in (await read_links(session)).items()}


async def subscribe(
    database: Database,
    product: str,
    block: str,
    resources: dict[str, object],
    *,
    field: str | None = None,
    into: UUID | None = None,
    status: str = "active",
) -> tuple[UUID, UUID]:
    """A subscription, or one that there is, with one more block; their ids."""
    subscription, instance = into or uuid4(), uuid4()
    if into is None:
        await database.pool.execute(
            "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
            " SELECT $1, product_id, 'ACME', '', $3, true FROM products WHERE name = $2",
            subscription,
            product,
            status,
        )
    await database.pool.execute(
        "INSERT INTO subscription_instances (subscription_instance_id, subscription_id, product_block_id, resources)"
        " SELECT $1, $2, product_block_id, $4 FROM product_blocks WHERE name = $3",
        instance,
        subscription,
        block,
        json.dumps(resources),
    )
    if field is not None:
        await database.pool.execute(
            "INSERT INTO subscription_roots VALUES ($1, $2, 0, $3)", subscription, field, instance
        )
    return subscription, instance


def migrate(cli: Cli, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Write the migration for the models and apply it."""
    written: dict[str, Any] = cli.json("db", "migrate-domain-models", *arguments, code=code)
    cli("db", "upgrade")
    return written


def test_a_product_of_the_code_comes_into_the_database_and_goes_again(cli: Cli) -> None:
    missing = cli("db", "migrate-domain-models", code=2, COLUMNS="1000").stderr
    for product in ("Node P", "Node PE"):
        assert (
            f"the product '{product}' needs a value of 'role' (one of P, PE): --fixed-input \"{product}:role=…\""
            in missing
        )
    assert not (cli.folder / "migrations").exists()

    shown = cli("db", "migrate-domain-models", *ROLES).stdout
    for line in ("adds the product Node P", "adds the product Node PE", "adds the product block Node"):
        assert line in shown.splitlines()
    assert "'orchestrator db upgrade' first" in cli("db", "migrate-domain-models", *ROLES, code=1).stderr
    cli("db", "upgrade")
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout
    assert cli.json("db", "migrate-domain-models") == {
        "path": None,
        "added": [],
        "removed": [],
        "changed": [],
        "left_out": [],
        "unloadable": [],
    }
    assert len(list((cli.folder / "migrations" / "project").glob("*.py"))) == 1


async def test_what_is_written_is_what_the_models_say(cli: Cli, database: Database) -> None:
    """And the way back leaves nothing of it, and forward again everything."""
    migrate(cli, *ROLES)
    found = await stored(database)
    inputs = {"kind": "router", "site": "Amsterdam"}
    link = frozenset({"modify_note"})
    assert found == Catalogue(
        {
            "Node P": CatalogueProduct(
                "Node P", "Node", "A router of ours.", "NODE", inputs | {"role": "P"}, frozenset({"Node"}), link
            ),
            "Node PE": CatalogueProduct(
                "Node PE", "Node", "A router of ours.", "NODE", inputs | {"role": "PE"}, frozenset({"Node"}), link
            ),
        },
        {
            "Node": CatalogueBlock(
                "Node", "A router.", "NODE", frozenset({"node_name", "ims_id"}), frozenset({"Port"})
            ),
            "Port": CatalogueBlock("Port", "Where a cable goes in.", "PORT", frozenset({"speed"})),
        },
    )
    cli("db", "downgrade", "project@base")
    assert await stored(database) == Catalogue()
    cli("db", "upgrade")
    assert await stored(database) == found


async def test_what_the_code_no_longer_has_goes_and_comes_back_with_a_downgrade(cli: Cli, database: Database) -> None:
    migrate(cli, *ROLES)
    before = await stored(database)
    (cli.folder / "flows.py").write_text(CHANGED)

    written = migrate(cli, "--fixed-input", "Core:role=P", "--fixed-input", "Node P:role=PE")

    assert {key: written[key] for key in ("added", "removed", "changed", "left_out")} == {
        "added": ["the product Core"],
        "removed": ["the product Node PE"],
        "changed": ["the product Node P: role=PE", "the product block Node: +site_id, -ims_id"],
        "left_out": [],
    }
    after = await stored(database)
    assert set(after.products) == {"Node P", "Core"}
    assert after.blocks["Node"].resource_types == {"node_name", "site_id"}
    assert await database.pool.fetchval("SELECT count(*) FROM resource_types WHERE resource_type = 'ims_id'") == 0
    assert "nothing to do" in cli("db", "migrate-domain-models").stdout
    cli("db", "downgrade", "project@base")
    cli("db", "upgrade")
    assert await stored(database) == after
    first = sorted((cli.folder / "migrations" / "project").glob("*_domain_models.py"))
    (base,) = [path for path in first if "down_revision = None" in path.read_text()]
    cli("db", "downgrade", base.name.split("_")[0])
    assert await stored(database) == before


async def test_what_subscriptions_hold_is_dropped_only_when_that_is_said(cli: Cli, database: Database) -> None:
    migrate(cli, *ROLES)
    await subscribe(database, "Node PE", "Node", {"ims_id": 7, "node_name": "ams"}, field="node")
    (cli.folder / "flows.py").write_text(CHANGED)

    written = migrate(cli, "--fixed-input", "Core:role=P", code=1)

    assert written["removed"] == []
    assert written["changed"] == [
        "the product Node PE: retired, because it has subscriptions",
        "the product block Node: +site_id",
    ]
    product, value = written["unloadable"]
    assert product.startswith(
        "the product Node PE: the code has no model for it, but subscriptions of it have not ended (1)"
    )
    assert value.startswith(
        "the resource type ims_id of Node: the code has no such value, but subscriptions hold some (1)"
    )
    assert (await stored(database)).products["Node PE"].retired
    shown = cli("db", "migrate-domain-models", code=1).stdout
    assert "but these models cannot load all subscriptions that there are:\n  • the product Node PE: " in shown
    assert "nothing to write" in shown

    await database.pool.execute("UPDATE subscriptions SET status = 'terminated'")
    assert migrate(cli, "--drop-values")["changed"] == ["the product block Node: -ims_id with its values"]
    assert await database.pool.fetchval("SELECT resources FROM subscription_instances") == '{"node_name": "ams"}'
    assert cli.json("db", "migrate-domain-models")["unloadable"] == []

    (cli.folder / "flows.py").write_text(
        CHANGED.replace('product_block_name="Node"', 'product_block_name="Router"').replace(
            "ports: list[PortBlock", "x: list[PortBlock"
        )
    )
    written = migrate(cli)
    assert written["added"] == ["the product block Router"]
    assert written["removed"] == [], "Node PE is retired, but it has its blocks"
    assert written["left_out"] == []
    await database.pool.execute(
        "UPDATE subscriptions SET product_id = (SELECT product_id FROM products WHERE name = 'Core')"
    )
    written = migrate(cli, code=1)
    assert written["removed"] == ["the product Node PE"]
    (told,) = written["unloadable"]
    assert told.startswith("the field node of Node P, Core: the code expects Router, but blocks Node stand there (1)")
    assert written["left_out"] == ["the product block Node: subscriptions have 1, terminated ones included"]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("role=P", "'role=P' is not PRODUCT:NAME=VALUE"),
        ("Node P:role", "'Node P:role' is not PRODUCT:NAME=VALUE"),
        ("Node P:role=X", "'role' of the product 'Node P' cannot be 'X' (one of P, PE)"),
        ("Node P:kind=switch", "'kind' of the product 'Node P' cannot be 'switch' (one of router)"),
        ("Node P:speed=10", "the model of the product 'Node P' has no fixed input 'speed'"),
        (
            "Node P:size=big",
            "'size' of the product 'Node P' cannot be 'big', says NodeInactive (Input should be a valid integer",
        ),
        (
            "Node P:size=7",
            "'size' of the product 'Node P' cannot be '7', says Node (Input should be less than or equal to 5)",
        ),
        ("Nodes:role=P", "SUBSCRIPTION_MODEL_REGISTRY has no product 'Nodes' (there are Node P, Node PE)"),
    ],
)
def test_a_fixed_input_that_cannot_be_is_wrong_usage(cli: Cli, option: str, told: str) -> None:
    done = cli("db", "migrate-domain-models", *ROLES, "--fixed-input", option, code=2, COLUMNS="1000")
    assert told in done.stderr
    assert not (cli.folder / "migrations").exists()


def test_a_registry_that_is_empty_by_mistake_removes_nothing(cli: Cli) -> None:
    migrate(cli, *ROLES)
    (cli.folder / "flows.py").write_text("")
    assert "name the modules with the models" in cli("db", "migrate-domain-models", code=1).stderr


# workflows of products

FLOWS = """
from orchestrator.targets import Target
from orchestrator.workflow import begin, step, workflow
from orchestrator.workflows import LazyWorkflowInstance

@step("Only")
def only(): ...
"""


def flow(name: str, target: str, products: list[str]) -> str:
    return (
        f"\nLazyWorkflowInstance(__name__, {name!r}, products={products!r})\n"
        f"@workflow({name!r}, target=Target.{target})\ndef {name}():\n    return begin >> only\n"
    )


async def test_the_products_that_a_workflow_names_are_linked_and_no_others(cli: Cli, database: Database) -> None:
    """B21, B23."""
    module = cli.folder / "flows.py"
    module.write_text(MODELS + FLOWS + flow("create_node", "CREATE", ["Node P"]) + flow("rename", "MODIFY", []))
    assert "migrate-domain-models" in cli("db", "migrate-workflows", code=1).stderr
    migrate(cli, *ROLES)
    shown = cli("db", "migrate-workflows").stdout
    assert "adds create_node, rename" in shown
    assert "links create_node: Node P" in shown
    cli("db", "upgrade")
    note = {"modify_note": {"Node P", "Node PE"}}
    assert await links(database) == note | {"create_node": {"Node P"}}
    assert "nothing to do" in cli("db", "migrate-workflows").stdout

    module.write_text(
        MODELS + FLOWS + flow("create_node", "CREATE", ["Node PE"]) + flow("make_node", "CREATE", ["Node P"])
    )
    written = cli.json("db", "migrate-workflows")
    assert {key: written[key] for key in ("added", "removed", "changed")} == {
        "added": ["make_node"],
        "removed": ["rename"],
        "changed": ["create_node"],
    }
    cli("db", "upgrade")
    assert await links(database) == note | {"create_node": {"Node PE"}, "make_node": {"Node P"}}

    # A new description makes a new row of the workflow, which has the links of the old one.
    module.write_text(module.read_text().replace("@workflow('make_node'", "@workflow('Make it'"))
    assert "changes make_node" in cli("db", "migrate-workflows").stdout
    cli("db", "upgrade")
    assert await links(database) == note | {"create_node": {"Node PE"}, "make_node": {"Node P"}}
    cli("db", "downgrade", "project@base")
    assert await links(database) == {}


def test_two_workflows_of_a_kind_for_one_product_are_refused_before_anything_is_written(cli: Cli) -> None:
    """B21: the error names the product and both."""
    migrate(cli, *ROLES)
    (cli.folder / "flows.py").write_text(
        MODELS + FLOWS + flow("first", "TERMINATE", ["Node P"]) + flow("second", "TERMINATE", ["Node PE", "Node P"])
    )
    done = cli("db", "migrate-workflows", code=1)
    assert "the product 'Node P' would have two TERMINATE workflows, 'first' and 'second'" in done.stderr
    assert len(list((cli.folder / "migrations" / "project").glob("*.py"))) == 1

    (cli.folder / "flows.py").write_text(
        MODELS + FLOWS + flow("first", "TERMINATE", ["Node P"]) + flow("second", "TERMINATE", [])
    )
    done = cli("db", "migrate-workflows", code=1, DEFAULT_PRODUCT_WORKFLOWS='["second"]')
    assert "'first' and 'second'" in done.stderr


def test_a_task_that_names_products_is_refused(cli: Cli) -> None:
    migrate(cli, *ROLES)
    (cli.folder / "flows.py").write_text(MODELS + FLOWS + flow("clean", "SYSTEM", ["Node P"]))
    assert "the task 'clean' has the target SYSTEM" in cli("db", "migrate-workflows", code=1).stderr


async def test_default_workflows_of_the_environment_are_linked_by_the_command(cli: Cli, database: Database) -> None:
    """B22."""
    migrate(cli, *ROLES)
    (cli.folder / "flows.py").write_text(MODELS + FLOWS + flow("audit", "MODIFY", ["Node P"]))
    cli.environment["DEFAULT_PRODUCT_WORKFLOWS"] = '["audit", "modify_note"]'
    told = "no migration has registered audit of DEFAULT_PRODUCT_WORKFLOWS yet"
    assert told in cli("db", "upgrade").stdout
    cli("db", "migrate-workflows")
    assert told not in cli("db", "upgrade").stdout
    both = {"Node P", "Node PE"}
    assert await links(database) == {"audit": both, "modify_note": both}
    assert "nothing to do" in cli("db", "migrate-workflows").stdout
    cli("db", "upgrade", code=1, DEFAULT_PRODUCT_WORKFLOWS="audit")
