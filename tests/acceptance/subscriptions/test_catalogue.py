"""From products and workflows in code to subscriptions that customers have, by commands alone."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.acceptance.subscriptions.conftest import MakeNetwork
from tests.acceptance.subscriptions.network import Network

SHOP = """
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import begin, step
from orchestrator.workflows import LazyWorkflowInstance
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow


class ShelfBlockInactive(ProductBlockModel, product_block_name="Shelf"):
    slots: int | None = None
    # MORE


class ShelfBlock(ShelfBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    slots: int


class ShelfInactive(SubscriptionModel, is_base=True):
    width: Literal[19, 23]
    shelf: ShelfBlockInactive


class Shelf(ShelfInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    shelf: ShelfBlock


SUBSCRIPTION_MODEL_REGISTRY.update({name: Shelf for name in PRODUCTS})


@step("Build")
async def build(session: AsyncSession, product: UUID):
    shelf = await ShelfInactive.from_product_id(session, product, "acme")
    shelf.shelf.slots = 42
    return {"subscription": shelf}


@step("Tidy up")
async def tidy_up(subscription: Shelf):
    subscription.note = "tidy"
    return {"subscription": subscription}


@create_workflow("Build a shelf")
def create_shelf():
    return begin >> build


@modify_workflow("Tidy a shelf up")
def tidy():
    return begin >> tidy_up


LazyWorkflowInstance(__name__, "create_shelf", products=PRODUCTS)
LazyWorkflowInstance(__name__, "tidy")
"""
SECOND = """
@create_workflow("Buy a shelf")
def buy_shelf():
    return begin >> build

LazyWorkflowInstance(__name__, "buy_shelf", products=PRODUCTS)
"""


def write(network: Network, *products: str, code: str = SHOP) -> None:
    """The project's module, with these products."""
    (network.folder / "shop.py").write_text(f"PRODUCTS = {list(products)!r}\n{code}")


def linked(network: Network, product: str) -> set[str]:
    """The workflows of a product."""
    rows = network.query(
        "SELECT w.name FROM workflows w JOIN products_workflows USING (workflow_id) JOIN products p USING (product_id)"
        " WHERE p.name = $1 AND w.deleted_at IS NULL",
        product,
    )
    return {row["name"] for row in rows}


def bring_in(network: Network, *fixed_inputs: str) -> None:
    """What an author does after the code has changed: both commands, and an upgrade after each."""
    options = [word for one in fixed_inputs for word in ("--fixed-input", one)]
    network.command("db", "migrate-domain-models", *options)
    network.command("db", "upgrade")
    network.command("db", "migrate-workflows")
    network.command("db", "upgrade")


def test_products_workflows_and_defaults_come_into_the_database_by_commands(networks: MakeNetwork) -> None:
    """B21, B22, B23: DEFAULT_PRODUCT_WORKFLOWS for products present and later; a second create workflow is refused."""
    network = networks(
        ORCHESTRATOR_WORKFLOWS="shop",
        ORCHESTRATOR_MIGRATIONS="project",
        DEFAULT_PRODUCT_WORKFLOWS='["modify_note", "tidy"]',
    )
    write(network, "Shelf 19")
    missing = network.command("db", "migrate-domain-models", exit_code=2)
    assert "Shelf 19" in missing.stderr
    assert "width" in missing.stderr
    bring_in(network, "Shelf 19:width=19")
    assert linked(network, "Shelf 19") == {"create_shelf", "tidy", "modify_note"}
    programs = [network.coordinator(), network.consumer()]
    for program in programs:
        program.ready()
    shelf = network.subscription_of(network.finish("create_shelf", {"product": network.product("Shelf 19")}))
    assert network.json("subscriptions", "show", str(shelf))["fixed_inputs"] == {"width": "19"}
    assert network.block(shelf, "Shelf") == {"slots": 42}
    network.finish_on("tidy", shelf)
    assert network.row(shelf)["note"] == "tidy"

    for command in ("migrate-domain-models", "migrate-workflows"):
        assert network.json("db", command)["path"] is None, "nothing to do"

    write(network, "Shelf 19", "Shelf 23", code=SHOP.replace("# MORE", 'colour: str = "grey"'))
    bring_in(network, "Shelf 23:width=23")
    assert linked(network, "Shelf 23") == {"create_shelf", "tidy", "modify_note"}
    for program in programs:
        assert program.stop() == 0
    for program in (network.coordinator(), network.consumer()):
        program.ready()
    network.finish_on("tidy", shelf)
    other = network.subscription_of(network.finish("create_shelf", {"product": network.product("Shelf 23")}))
    assert network.block(other, "Shelf") == {"slots": 42, "colour": "grey"}

    write(network, "Shelf 19", "Shelf 23", code=SHOP.replace("# MORE", 'colour: str = "grey"') + SECOND)
    refused = network.command("db", "migrate-workflows", exit_code=1)
    for name in ("'create_shelf'", "'buy_shelf'", "'Shelf 19'", "CREATE"):
        assert name in refused.stderr


@pytest.mark.parametrize("workflow", ["create_node", "terminate_node", "validate_node", "reconcile_node"])
def test_the_database_itself_refuses_a_second_workflow_of_a_kind(network: Network, workflow: str) -> None:
    """B21: whatever writes the rows; any number of modify workflows is fine, as the project shows."""
    insert = """
        WITH second AS (
            INSERT INTO workflows (name, target, is_task, description)
            SELECT $1 || '_2', target, is_task, '' FROM workflows WHERE name = $1 RETURNING workflow_id, target
        )
        INSERT INTO products_workflows (product_id, workflow_id, target)
        SELECT $2, workflow_id, target FROM second RETURNING 1"""
    product = UUID(network.product("Node P"))
    with pytest.raises(asyncpg.UniqueViolationError), network.holding(insert, workflow, product):
        pass
    assert network.value("SELECT count(*) FROM workflows WHERE name = $1", f"{workflow}_2") == 0
