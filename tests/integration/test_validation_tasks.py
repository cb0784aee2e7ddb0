"""The shipped tasks that start the validation of many subscriptions: which, how many, and what is left out and counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from orchestrator import registry
from orchestrator.db.session import Database
from orchestrator.errors import FormIncompleteError, InvalidInputError
from orchestrator.services.start import StartRequest, start
from orchestrator.services.subscriptions import WF_USABLE_MAP
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.tasks.validate_product_type import task_validate_product_type
from orchestrator.workflows.tasks.validate_subscriptions import task_validate_subscriptions
from orchestrator.workflows.utils import modify_workflow, validate_workflow
from tests.integration.engine_bench import LIMITS, Bench, bench_of
from tests.integration.subscription_rows import Rows


@step("Compare")
async def compare() -> None: ...


@validate_workflow("Validate a node")
def validate_node() -> StepList:
    return begin >> compare


@validate_workflow("Validate a port")
def validate_port() -> StepList:
    return begin >> compare


@modify_workflow("Pretends to be a validation")
def validate_link() -> StepList:
    return begin >> compare


@dataclass
class Inventory:
    """Products of two types, of which some have a workflow that validates them."""

    bench: Bench
    rows: Rows
    node: UUID
    router: UUID
    port: UUID
    site: UUID

    async def run(self, workflow: str, *pages: State) -> dict[str, Any]:
        """Run a task to its end, and return its state."""
        runner = await self.bench.runner()
        async with self.bench.database.transaction() as session:
            process_id = (await start(session, StartRequest(workflow, pages, "noc"), LIMITS)).process_id
        await self.bench.run_step(process_id, runner, "completed")
        state: dict[str, Any] = json.loads((await self.bench.row(process_id))["state"])
        return state

    async def validated(self) -> list[tuple[str, UUID, str]]:
        """Return the validations that there are: workflow, subscription and who has started it."""
        found = await self.bench.database.pool.fetch(
            "SELECT p.workflow, t.subscription_id, p.started_by"
            " FROM processes p JOIN processes_subscriptions t USING (process_id)"
            " WHERE p.workflow LIKE 'validate%' ORDER BY p.workflow, t.subscription_id"
        )
        return [tuple(row) for row in found]


@pytest.fixture
async def inventory(database: Database, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inventory]:
    await database.pool.execute("DELETE FROM workflows")
    async with bench_of(
        database, amqp_url, monkeypatch, __name__, task_validate_product_type, task_validate_subscriptions
    ) as bench:
        rows = Rows(database.pool)
        node, router, port, site = [await rows.product(name) for name in ("Node", "Router", "Port", "Site")]
        await database.pool.execute("UPDATE products SET product_type = 'Port' WHERE name = 'Port'")
        for name, products in (("validate_node", (node, router)), ("validate_port", (port,))):
            registry.LazyWorkflowInstance(__name__, name)
            await rows.workflow(name, "VALIDATE", *products, is_task=True)
        yield Inventory(bench, rows, node, router, port, site)


async def test_each_subscription_in_sync_is_validated_by_the_workflow_of_its_product(inventory: Inventory) -> None:
    """B15, B16: one process for each, in one commit; the state has counts, and says what was left out and why."""
    rows = inventory.rows
    nodes = [await rows.subscription(inventory.node), await rows.subscription(inventory.router)]
    port = await rows.subscription(inventory.port)
    await rows.subscription(inventory.site)
    await rows.subscription(inventory.node, status="terminated")
    await rows.subscription(inventory.node, status="initial")
    await rows.subscription(inventory.node, status="provisioning")
    await rows.subscription(inventory.node, insync=False)
    await rows.subscription(inventory.port, insync=False)

    assert await inventory.run("task_validate_subscriptions") == {
        "validations_started": 3,
        "started_by_workflow": {"validate_node": 2, "validate_port": 1},
        "skipped": {"out_of_sync": 2},
        "broken_workflows": {},
        "products_without_validation": ["Site"],
        "products_without_validation_count": 1,
    }
    expected = [("validate_node", one, "noc") for one in sorted(nodes)]
    assert await inventory.validated() == [*expected, ("validate_port", port, "noc")]


async def test_only_subscriptions_of_the_chosen_type_are_validated(inventory: Inventory) -> None:
    """B15."""
    await inventory.rows.subscription(inventory.node)
    port = await inventory.rows.subscription(inventory.port)

    state = await inventory.run("task_validate_product_type", {"product_type": "Port"})

    assert (state["product_type"], state["validations_started"]) == ("Port", 1)
    assert state["products_without_validation_count"] == 0
    assert await inventory.validated() == [("validate_port", port, "noc")]


async def test_the_form_offers_the_types_that_there_are_and_refuses_others(inventory: Inventory) -> None:
    async with inventory.bench.database.transaction() as session:
        with pytest.raises(FormIncompleteError) as page:
            await start(session, StartRequest("task_validate_product_type"), LIMITS)
        with pytest.raises(InvalidInputError, match="Node"):
            await start(session, StartRequest("task_validate_product_type", [{"product_type": "Pear"}]), LIMITS)
    assert '"enum": ["Node", "Port"]' in json.dumps(page.value.form)


async def test_the_projects_rules_say_in_which_statuses_a_validation_may_run(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(WF_USABLE_MAP, "validate_node", ["active", "provisioning"])
    for status in ("active", "provisioning", "terminated"):
        await inventory.rows.subscription(inventory.node, status=status)
        await inventory.rows.subscription(inventory.port, status=status)
    state = await inventory.run("task_validate_subscriptions")
    assert state["started_by_workflow"] == {"validate_node": 2, "validate_port": 1}


async def test_what_an_earlier_run_has_still_to_validate_is_not_started_again(inventory: Inventory) -> None:
    for _ in range(3):
        await inventory.rows.subscription(inventory.node)
    assert (await inventory.run("task_validate_subscriptions"))["validations_started"] == 3
    first = await inventory.bench.database.pool.fetchval(
        "SELECT process_id FROM processes WHERE workflow = 'validate_node' LIMIT 1"
    )
    await inventory.bench.database.pool.execute(
        "UPDATE processes SET status = 'completed' WHERE process_id = $1", first
    )

    state = await inventory.run("task_validate_subscriptions")

    assert (state["validations_started"], state["skipped"]) == (1, {"being_validated": 2})


@pytest.mark.parametrize("status", ["failed", "inconsistent_data", "aborted"])
async def test_a_validation_that_has_failed_does_not_keep_its_subscription_from_the_next(
    inventory: Inventory, status: str
) -> None:
    await inventory.rows.subscription(inventory.node)
    await inventory.run("task_validate_subscriptions")
    await inventory.bench.database.pool.execute(
        "UPDATE processes SET status = $1 WHERE workflow = 'validate_node'", status
    )
    assert (await inventory.run("task_validate_subscriptions"))["validations_started"] == 1


async def test_a_workflow_that_cannot_be_started_is_named_and_stops_no_other(inventory: Inventory) -> None:
    """Neither what the code lacks nor what it does not call a validation, whatever the database says."""
    link = await inventory.rows.product("Link")
    registry.LazyWorkflowInstance(__name__, "validate_link")
    await inventory.rows.workflow("validate_link", "VALIDATE", link, is_task=True)
    await inventory.rows.workflow("validate_site", "VALIDATE", inventory.site, is_task=True)
    for product in (link, inventory.site, inventory.port):
        await inventory.rows.subscription(product)

    state = await inventory.run("task_validate_subscriptions")

    assert state["started_by_workflow"] == {"validate_port": 1}
    assert state["skipped"] == {"broken_workflow": 2}
    assert "has the target MODIFY in the code" in state["broken_workflows"]["validate_link"]
    assert "is not known to this program" in state["broken_workflows"]["validate_site"]


async def test_many_subscriptions_are_as_many_processes_and_a_small_state(inventory: Inventory) -> None:
    """Counts, not ids."""
    await inventory.bench.database.pool.execute(
        "INSERT INTO subscriptions (subscription_id, product_id, customer_id, description, status, insync)"
        " SELECT gen_random_uuid(), $1, 'acme', 'node ' || n, 'active', true FROM generate_series(1, 500) n",
        inventory.node,
    )
    state = await inventory.run("task_validate_subscriptions")
    assert state["validations_started"] == 500
    assert len(json.dumps(state)) < 500
    assert len({subscription for _, subscription, _ in await inventory.validated()}) == 500
