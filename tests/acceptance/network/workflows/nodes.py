"""Workflows on nodes."""

from __future__ import annotations

from uuid import UUID

from pydantic import ConfigDict, Field, create_model
from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.domain import SubscriptionModel
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.utils import (
    create_workflow,
    modify_workflow,
    reconcile_workflow,
    terminate_workflow,
    validate_workflow,
)
from tests.acceptance.journal import is_open
from tests.acceptance.network.products import Node, NodeInactive
from tests.acceptance.network.workflows.steps import look, obey, tell_network


class TagPage(FormPage):
    """The name of the gates that steps look at."""

    tag: str = "-"


class NodePage(TagPage):
    """A new node."""

    customer_id: str = "acme"
    node_name: str = Field(min_length=2)


def node_form(product_name: str) -> FormGenerator:
    """Yield pages, as a plain generator that knows which product was chosen."""

    class ChosenNodePage(NodePage):
        """The page, titled with the product."""

        model_config = ConfigDict(title=f"A new {product_name}")

    filled = yield ChosenNodePage
    return filled.model_dump()


@step("Make the node")
async def make_node(
    session: AsyncSession, process_id: UUID, product: UUID, customer_id: str, node_name: str, tag: str
) -> State:
    subscription = await NodeInactive.from_product_id(session, product, customer_id, description=f"node {node_name}")
    subscription.node.node_name = node_name
    await subscription.save(session)
    await obey(process_id, "make", tag)
    return {"subscription": subscription}


@step("Give it a number")
async def number(subscription: NodeInactive, process_id: UUID, tag: str) -> State:
    await obey(process_id, "number", tag)
    subscription.node.ims_id = 7
    return {"subscription": subscription}


@create_workflow("Make a node", initial_input_form=node_form)
def create_node() -> StepList:
    return begin >> make_node >> number


async def rename_form(subscription: NodeInactive) -> AsyncFormGenerator:
    """Yield pages, as an async generator that knows the subscription."""
    filled = yield create_model("RenamePage", __base__=TagPage, node_name=(str, subscription.node.node_name))
    yield filled.model_dump()


@step("Rename")
async def rename(subscription: NodeInactive, process_id: UUID, node_name: str, tag: str) -> State:
    """Change the model, and only then wait or fail: what is not committed must not be seen."""
    subscription.node.node_name = node_name
    subscription.node.renamed += 1
    await obey(process_id, "rename", tag)
    return {"subscription": subscription}


@modify_workflow("Give a node another name", initial_input_form=rename_form)
def modify_node() -> StepList:
    return begin >> rename >> tell_network >> look


class DescriptionPage(TagPage):
    """A new description."""

    description: str


@step("Store the description")
async def store_description(
    session: AsyncSession, subscription: SubscriptionModel, process_id: UUID, description: str, tag: str
) -> State:
    await obey(process_id, "describe", tag)
    subscription.description = description
    match tag:
        case "forgotten":
            return {}
        case "dumped":
            return {"subscription": subscription.model_dump(mode="json")}
        case "not awaited":
            subscription.save(session).close()  # what a coroutine that nobody awaits comes to
            return {}
        case "saved":
            await subscription.save(session)
            return {}
    return {"subscription": subscription}


@modify_workflow("Change the description", initial_input_form=lambda: DescriptionPage)
def modify_description() -> StepList:
    return begin >> store_description


class MovePage(FormPage):
    """The product to move to."""

    new_product: UUID


@step("Move it to another product")
async def move(session: AsyncSession, subscription: Node, new_product: UUID) -> State:
    return {"subscription": await Node.from_other_product(session, subscription, new_product)}


@modify_workflow("Move a node to another product", initial_input_form=lambda: MovePage)
def move_node() -> StepList:
    return begin >> move >> look


@step("Remove it from the network")
async def remove(subscription: SubscriptionModel, process_id: UUID, tag: str) -> None:
    await obey(process_id, "remove", tag)


@terminate_workflow("End a node", initial_input_form=lambda: TagPage)
def terminate_node() -> StepList:
    return begin >> remove


@step("Compare with the network")
async def compare(subscription: Node, process_id: UUID) -> State:
    """Wait at gates named like the node: a validation takes no input but the subscription."""
    await obey(process_id, "compare", str(subscription.node.node_name))
    wrong = is_open(f"wrong-{subscription.node.node_name}")
    assert not wrong, f"the network calls {subscription.node.node_name} something else"
    return {"compared": subscription.node.node_name}


@validate_workflow("Compare a node with the network")
def validate_node() -> StepList:
    return begin >> compare


@step("Make the network the same")
async def repair(subscription: Node, process_id: UUID) -> State:
    await obey(process_id, "repair", str(subscription.node.node_name))
    subscription.node.tags = ["repaired"]
    return {"subscription": subscription}


@reconcile_workflow("Make the network what the node says")
def reconcile_node() -> StepList:
    return begin >> repair
