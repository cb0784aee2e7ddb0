"""The first pages of forms on a real database: what is refused there, in whose words, and who is to act. B17, B18."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.session import Database
from orchestrator.errors import DefinitionError, InvalidInputError
from orchestrator.forms import FormPage
from orchestrator.services.hooks import run_form
from orchestrator.workflows.pages import product_first, subscription_first
from tests.integration.model_bench import Bench, make_bench
from tests.unit.models import Node

LINK = """
WITH made AS (INSERT INTO workflows (name, target) VALUES ('create_node', 'CREATE') RETURNING workflow_id)
INSERT INTO products_workflows SELECT product_id, workflow_id, 'CREATE' FROM products, made WHERE products.name = 'Node P'
"""


@pytest.fixture
async def bench(database: Database) -> Bench:
    return await make_bench(database)


async def test_a_form_that_cannot_show_what_is_stored_is_not_blamed_on_the_caller(bench: Bench) -> None:
    """B18: and the text says what to do about it."""
    node = await bench.node()
    await bench.database.pool.execute("UPDATE subscription_instances SET resources = resources - 'ims_id'")

    async def may_run(_: AsyncSession, __: UUID) -> None: ...

    def form(subscription: Node) -> type[FormPage]:
        raise AssertionError(subscription)

    pages = subscription_first("modify_node", form, may_run, takes_version=False)
    async with bench.session() as session:
        with pytest.raises(DefinitionError) as refused:
            await run_form(pages, {"session": session}, [{"subscription_id": str(node.subscription_id)}], "the form")
    assert str(refused.value) == (
        f"the form of 'modify_node' cannot be made: the subscription {node.subscription_id} (Node P, active) does not fit Node:"
        " node.ims_id: Field required (in NodeBlock); run 'orchestrator db migrate-domain-models' to see what a migration must"
        " change"
    )


async def test_a_product_is_named_by_its_id_or_its_name(bench: Bench) -> None:
    """B17. The state holds the id."""
    await bench.database.pool.execute(LINK)
    for product in (str(bench.products["Node P"]), "Node P"):
        async with bench.session() as session:
            state = await run_form(
                product_first("create_node", None), {"session": session}, [{"product": product}], "the form"
            )
        assert state == {"product": str(bench.products["Node P"]), "product_name": "Node P"}
    async with bench.session() as session:
        with pytest.raises(InvalidInputError) as refused:
            await run_form(product_first("create_node", None), {"session": session}, [{"product": "Node"}], "the form")
    told = f"choose one by its id: {bench.products['Node P']} (Node P)"
    assert refused.value.reasons == [{"key": "form.invalid", "loc": ["product"], "msg": told}]
