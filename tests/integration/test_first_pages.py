"""The first pages of forms on a real database: what is refused there, in whose words, and who is to act. B17, B18."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

from orchestrator.db.hook_session import face
from orchestrator.db.session import Database
from orchestrator.db.subscriptions.neighbours import read_case
from orchestrator.errors import DefinitionError, FormIncompleteError, InvalidInputError
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.services.hooks import run_form
from orchestrator.types import State
from orchestrator.workflows import pages
from orchestrator.workflows.pages import (
    product_choice,
    product_first,
    product_type_choice,
    subscription_choice,
    subscription_first,
)
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

    def form(subscription: Node) -> type[FormPage]:
        raise AssertionError(subscription)

    pages = subscription_first("modify_node", form, read_case, takes_version=False)
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
    told = f"choose one by its name or id: Node P ({bench.products['Node P']})"
    assert refused.value.reasons == [{"key": "form.invalid", "loc": ["product"], "msg": told}]


def form_with_state(state: State, product: UUID) -> FormGenerator:
    """Return what a form of ported code reads."""
    yield Answer
    return {"seen": dict(state), "asked_for": str(product)}


class Answer(FormPage):
    customer_name: str = "Bakery"


async def test_a_form_on_a_subscription_knows_its_product_and_customer(bench: Bench) -> None:
    node = await bench.node()
    begin = {
        "subscription_id": str(node.subscription_id),
        "product": str(bench.products["Node P"]),
        "customer_id": node.customer_id,
    }
    first: State = {"subscription_id": str(node.subscription_id)}
    async with bench.session() as session:
        alone = subscription_first("validate_node", None, read_case, takes_version=False)
        assert await run_form(alone, {"session": session}, [first], "the form") == begin
        asking = subscription_first("modify_node", form_with_state, read_case, takes_version=True)
        state = await run_form(asking, {"session": session}, [{**first, "version": node.version}, {}], "the form")
    known = {**begin, "subscription_version": node.version}
    assert state == {**known, "seen": {**known, "customer_name": "Bakery"}, "asked_for": begin["product"]}


async def test_a_form_on_a_subscription_may_ask_for_another_customer_but_not_for_another_subscription(
    bench: Bench,
) -> None:
    node = await bench.node()

    class Move(FormPage):
        customer_id: str

    def move() -> FormGenerator:
        return (yield Move).model_dump()

    def replace() -> FormGenerator:
        yield Move
        return {"subscription_id": str(uuid4())}

    inputs: list[State] = [{"subscription_id": str(node.subscription_id)}, {"customer_id": "Mill"}]
    async with bench.session() as session:
        pages = subscription_first("move_node", move, read_case, takes_version=False)
        assert (await run_form(pages, {"session": session}, inputs, "the form"))["customer_id"] == "Mill"
        pages = subscription_first("move_node", replace, read_case, takes_version=False)
        with pytest.raises(DefinitionError, match="ends with another 'subscription_id' than the first page has"):
            await run_form(pages, {"session": session}, inputs, "the form")


async def test_a_plain_form_offers_products_and_subscriptions(bench: Bench) -> None:
    """The engine's own functions return their results where the session is the synchronous one."""
    await bench.database.pool.execute(LINK)
    node = await bench.node()

    def form(session: Session, product_name: str) -> FormGenerator:
        nodes = subscription_choice(session, product_types=["T"], only_in_sync=False)
        products, types = product_choice(session, "create_node"), product_type_choice(session)

        class Offered(FormPage):
            node: nodes  # type: ignore[valid-type]
            other_product: products  # type: ignore[valid-type]
            type: types  # type: ignore[valid-type]

        filled = yield Offered
        return {**filled.model_dump(), "asked_for": product_name}

    product = str(bench.products["Node P"])
    filled = {"node": str(node.subscription_id), "other_product": product, "type": "T"}
    async with bench.session() as session:
        pages = product_first("create_node", form)
        with pytest.raises(FormIncompleteError):
            await run_form(pages, {"session": session}, [{"product": product}], "the form")
        named = [{"product": "Node P"}, {**filled, "other_product": "Node P"}]
        state = await run_form(pages, {"session": session}, named, "the form")
    assert state == {**filled, "product": product, "product_name": "Node P", "asked_for": "Node P"}


async def test_of_a_long_list_the_newest_are_offered_and_the_id_of_any_other_is_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B18: a subscription is not refused because it is old."""
    monkeypatch.setattr(pages, "MAX_CHOICES", 2)
    nodes = [await bench.node(name) for name in ("first", "second", "third", "fourth")]

    def form(session: Session) -> FormGenerator:
        choice = subscription_choice(session, only_in_sync=False)

        class Offered(FormPage):
            node: choice  # type: ignore[valid-type]

        filled = yield Offered
        return filled.model_dump(mode="json")

    async def fill(*inputs: State) -> State:
        async with bench.session() as session:
            return await run_form(form, {"session": face(session, form)}, list(inputs), "the form")

    with pytest.raises(FormIncompleteError) as asked:
        await fill()
    offered: Any = json.loads(json.dumps(asked.value.form))["$defs"]["SubscriptionChoice"]
    assert offered["enum"] == [str(one.subscription_id) for one in (nodes[3], nodes[2])]
    assert "The newest 2 of 4 are offered" in offered["description"]
    for node in nodes:
        assert await fill({"node": str(node.subscription_id)}) == {"node": str(node.subscription_id)}
    for wrong in (str(uuid4()), "first"):
        with pytest.raises(InvalidInputError) as refused:
            await fill({"node": wrong})
        assert f"choose one by its id: {nodes[3].subscription_id} (" in str(refused.value)


async def test_a_form_may_end_with_a_subscription_as_it_is_stored_and_the_state_refers_to_it(bench: Bench) -> None:
    """The usual end of a modify form: ``return user_input | {"subscription": subscription}``."""
    node = await bench.node()

    def form(session: Session, subscription_id: str, state: State) -> FormGenerator:
        subscription = Node.from_subscription(session, subscription_id)
        filled = yield Answer
        if state.get("customer_name") == "Mill":
            subscription.node.node_name = "changed"
        return {**filled.model_dump(), "subscription": subscription, "blocks": [subscription.node]}

    pages = subscription_first("modify_node", form, read_case, takes_version=False)
    first: State = {"subscription_id": str(node.subscription_id)}
    async with bench.session() as session:
        state = await run_form(pages, {"session": session}, [first, {}], "the form")
        assert state["subscription"] == node.reference()
        assert state["blocks"] == [node.node.reference()]
        with pytest.raises(
            DefinitionError, match=r"a form changes nothing, so let a step do it: .* was made or changed"
        ):
            await run_form(pages, {"session": session}, [first, {"customer_name": "Mill"}], "the form")
