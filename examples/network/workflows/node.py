"""The workflows of nodes."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from examples.network.products.node import Node, NodeInactive, Role
from examples.network.workflows.provisioning import compare, configure, provision, remove
from orchestrator.forms import FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, inputstep, step
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow, validate_workflow

NodeName = Annotated[str, Field(pattern=r"^[a-z]{3}-\d+$", title="Name, for example ams-1")]


def create_form(product_name: str) -> FormGenerator:
    """Ask for the node's fields, after the page that asks for the product."""

    class NodeOrder(FormPage):
        model_config = ConfigDict(title=f"A new {product_name}")

        customer_id: str
        node_name: NodeName
        role: Role
        management_address: IPv6Address

    order = yield NodeOrder
    return order.model_dump()


@step("Construct the node")
async def construct(
    session: AsyncSession,
    product: UUID,
    customer_id: str,
    node_name: str,
    role: Role,
    management_address: IPv6Address,
) -> State:
    """Make the subscription; returning it saves it."""
    subscription = await NodeInactive.from_product_id(session, product, customer_id)
    subscription.node.node_name = node_name
    subscription.node.role = role
    subscription.node.management_address = management_address
    return {"subscription": subscription}


@create_workflow("Create a node", initial_input_form=create_form)
def create_node() -> StepList:
    """Make it known, have it installed, configure it."""
    return begin >> construct >> provision


def modify_form(subscription: Node) -> FormGenerator:
    """Ask for the new value, after the page that asks for the subscription; the field begins with the present one."""

    class NodeChange(FormPage):
        model_config = ConfigDict(title=f"Move {subscription.node.node_name}")

        management_address: IPv6Address = subscription.node.management_address

    change = yield NodeChange
    return change.model_dump()


@inputstep("Approve the maintenance", assignee="NOC")
def approve(subscription: Node, management_address: IPv6Address) -> FormGenerator:
    """Ask for a confirmation: a node that moves is away for a moment. Meanwhile the subscription is out of sync."""

    class Approval(FormPage):
        approved_by: Annotated[
            str,
            Field(min_length=1, title=f"Who approves of {subscription.node.node_name} moving to {management_address}?"),
        ]

    approval = yield Approval
    return approval.model_dump()


@step("Change the management address")
async def change_address(subscription: Node, management_address: IPv6Address) -> State:
    """Write down what shall be."""
    subscription.node.management_address = management_address
    return {"subscription": subscription}


@modify_workflow("Change the management address of a node", initial_input_form=modify_form)
def modify_node() -> StepList:
    """Ask, write it down, make it so."""
    return begin >> approve >> change_address >> configure


@validate_workflow("Compare a node with the network")
def validate_node() -> StepList:
    """Look, and change nothing."""
    return begin >> compare


@terminate_workflow("Terminate a node")
def terminate_node() -> StepList:
    """Refused by the engine as long as a port of it is not terminated."""
    return begin >> remove
