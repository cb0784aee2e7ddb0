"""What ``task_validate_products`` finds: points in which code and database disagree, both ways, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from orchestrator import registry
from orchestrator.db import registration as register
from orchestrator.db.session import Database
from orchestrator.db.workflows import Registration
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.services.registrations import describe_workflow, find_disagreements
from orchestrator.types import SubscriptionLifecycle
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import create_workflow, modify_workflow, task, terminate_workflow, validate_workflow
from tests.integration.subscription_rows import Rows


class CircuitBlockInactive(ProductBlockModel, product_block_name="Circuit"):
    vlan: int | None = None


class CircuitBlock(CircuitBlockInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    vlan: int


class CircuitInactive(SubscriptionModel, is_base=True):
    circuit: CircuitBlockInactive


class Circuit(CircuitInactive, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    circuit: CircuitBlock


@step("Work")
async def work() -> None: ...


@create_workflow("Create a circuit")
def create_circuit() -> StepList:
    return begin >> work


@modify_workflow("Modify a circuit")
def modify_circuit() -> StepList:
    return begin >> work


@terminate_workflow("Terminate a circuit")
def terminate_circuit() -> StepList:
    return begin >> work


@validate_workflow("Validate a circuit")
def validate_circuit() -> StepList:
    return begin >> work


@task()
def list_circuits() -> StepList:
    return begin >> work


@task("Count circuits")
def count_circuits() -> StepList:
    return begin >> work


def replace_task(connection: Connection, name: str) -> None:
    register.remove_workflow(connection, name)
    register.register_workflow(connection, name=name, target="MODIFY", description="Count")


Change = Callable[[Connection], Any]
OF_CIRCUITS = ("create_circuit", "modify_circuit", "terminate_circuit", "validate_circuit")
MODELS = "'orchestrator db migrate-domain-models' writes the migration"
WORKFLOWS = "'orchestrator db migrate-workflows' writes the migration"


class Project:
    """Code and a database that agree, until a test changes one of them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def change(self, *changes: Change) -> None:
        async with self.database.engine.begin() as connection:
            for one in changes:
                await connection.run_sync(one)

    async def find(self, *defaults: str) -> list[str]:
        async with self.database.transaction() as session:
            return await find_disagreements(session, defaults)


@pytest.fixture
async def project(database: Database, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(registry, "_instances", {})
    await database.pool.execute("DELETE FROM workflows")
    for name in list(SUBSCRIPTION_MODEL_REGISTRY):
        monkeypatch.delitem(SUBSCRIPTION_MODEL_REGISTRY, name)
    monkeypatch.setitem(SUBSCRIPTION_MODEL_REGISTRY, "Circuit", Circuit)
    for name in OF_CIRCUITS:
        registry.LazyWorkflowInstance(__name__, name, products=["Circuit"])
    registry.LazyWorkflowInstance(__name__, "count_circuits")
    made = Project(database)

    def fill(connection: Connection) -> None:
        register.register_product_block(connection, name="Circuit", resource_types=["vlan"])
        register.register_product(connection, name="Circuit", product_type="Circuit", product_blocks=["Circuit"])
        for name in OF_CIRCUITS:
            kind = name.partition("_")[0]
            register.register_workflow(
                connection,
                name=name,
                target=kind.upper(),
                description=f"{kind.capitalize()} a circuit",
                products=["Circuit"],
            )
        register.register_task(connection, name="count_circuits", description="Count circuits")

    await made.change(fill)
    return made


async def test_nothing_is_found_where_code_and_database_agree(project: Project) -> None:
    assert await project.find("modify_circuit") == []


async def test_a_description_that_the_code_does_not_have_is_left_to_people(project: Project) -> None:
    registry.LazyWorkflowInstance(__name__, "list_circuits")
    await project.change(
        lambda c: register.register_task(c, name="list_circuits", description="Lists what there is"),
    )

    assert await project.find("modify_circuit") == []
    stored = Registration("list_circuits", "SYSTEM", is_task=True, description="Lists what there is")
    assert describe_workflow("list_circuits", stored) == stored
    assert describe_workflow("list_circuits").description == "list_circuits"
    other = replace(stored, name="count_circuits")
    assert describe_workflow("count_circuits", other).description == "Count circuits", "the code describes it"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda c: register.remove_workflow(c, "count_circuits"),
            [f"the workflow 'count_circuits' is in the code but not in the database: {WORKFLOWS}"],
        ),
        (
            lambda c: register.register_task(c, name="old_task"),
            [
                (
                    "the workflow 'old_task' is in the database but not in the code: put its LazyWorkflowInstance back, or"
                    f" {WORKFLOWS} that removes it"
                )
            ],
        ),
        (
            lambda c: replace_task(c, "count_circuits"),
            [
                (
                    "the workflow 'count_circuits' has target 'SYSTEM' in the code and 'MODIFY' in the database, is_task"
                    f" True in the code and False in the database, description 'Count circuits' in the code and 'Count' in the"
                    f" database: {WORKFLOWS}"
                )
            ],
        ),
        (
            lambda c: register.unlink_workflow(c, "validate_circuit", ["Circuit"]),
            [
                (
                    "the LazyWorkflowInstance of 'validate_circuit' names the product 'Circuit', which the database does not link"
                    f" to it: {WORKFLOWS}"
                ),
                (
                    "the product 'Circuit' has no workflow for VALIDATE: name the product in the LazyWorkflowInstance of one;"
                    f" {WORKFLOWS}. Or retire the product"
                ),
            ],
        ),
        (
            lambda c: register.register_resource_type(c, "speed"),
            [f"the resource type speed is in the database but no longer in the code: {MODELS}"],
        ),
        (
            lambda c: register.add_resource_types(c, "Circuit", ["speed"]),
            [f"the code differs from the database in the product block Circuit: -speed: {MODELS}"],
        ),
        (
            lambda c: register.remove_resource_types(c, "Circuit", ["vlan"]),
            [f"the code differs from the database in the product block Circuit: +vlan: {MODELS}"],
        ),
    ],
    ids=["lost row", "lost code", "changed", "unlinked", "idle type", "type too many", "type too few"],
)
async def test_each_difference_is_said_with_what_to_do_about_it(
    project: Project, change: Change, found: list[str]
) -> None:
    await project.change(change)
    assert await project.find() == found


async def test_a_product_that_only_the_database_has_is_found_with_all_that_it_lacks(project: Project) -> None:
    await project.change(
        lambda c: register.register_product(c, name="Port", product_type="Port"),
        lambda c: register.link_workflow(c, "create_circuit", ["Port"]),
    )
    assert await project.find("modify_circuit") == [
        (
            "the database links 'create_circuit' to the product 'Port', which its LazyWorkflowInstance does not name:"
            f" {WORKFLOWS}"
        ),
        (
            "the workflow 'modify_circuit' is one of DEFAULT_PRODUCT_WORKFLOWS, but not linked to the product 'Port': run"
            " 'orchestrator db upgrade'"
        ),
        (
            "the product 'Port' has no workflow for MODIFY, TERMINATE, VALIDATE: name the product in the LazyWorkflowInstance of"
            f" one; {WORKFLOWS}. Or retire the product"
        ),
        f"the product Port is in the database but no longer in the code: {MODELS}",
    ]
    await project.change(
        lambda c: register.retire_product(c, "Port"), lambda c: register.unlink_workflow(c, "create_circuit", ["Port"])
    )
    assert [one for one in await project.find() if "has no workflow" in one] == []


async def test_a_product_that_only_the_code_has_is_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUBSCRIPTION_MODEL_REGISTRY, "Fast circuit", Circuit)
    assert await project.find() == [f"the product Fast circuit is in the code but not in the database: {MODELS}"]


async def test_subscriptions_that_the_code_cannot_load_are_found(project: Project) -> None:
    rows = Rows(project.database.pool)
    product = await project.database.pool.fetchval("SELECT product_id FROM products")
    subscription = await rows.subscription(product)
    await rows.root(subscription, await rows.block(subscription, "Circuit", {"vlan": "nine"}), "circuit")
    (found,) = await project.find()
    assert found.startswith(
        "subscriptions cannot be loaded: the resource type vlan of Circuit: CircuitBlock cannot load"
    )


async def test_one_broken_module_is_one_finding_with_all_its_workflows(project: Project) -> None:
    for name in ("count_nodes", "count_ports"):
        registry.LazyWorkflowInstance("there.is.none", name)
        await project.change(lambda c, name=name: register.register_task(c, name=name))  # type: ignore[misc]
    (found,) = await project.find()
    assert found.startswith(
        "the code of the workflows 'count_nodes', 'count_ports' is broken: the module 'there.is.none'"
    )


async def test_a_program_without_the_models_says_so_instead_of_comparing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SUBSCRIPTION_MODEL_REGISTRY, "Circuit")
    (found,) = await project.find()
    assert found.startswith("the models cannot be compared with the database: no module of ORCHESTRATOR_WORKFLOWS puts")
