"""The workflows of ports."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from examples.network.products.node import Node
from examples.network.products.port import Port, PortInactive
from examples.network.workflows.provisioning import compare, configure, describe, provision_remotely, remove
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.pages import product_choice, subscription_choice
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow, validate_workflow

PortName = Annotated[str, Field(pattern=r"^[a-z]{2}-\d+/\d+/\d+$", title="Name, for example xe-0/0/1")]


async def create_form(session: AsyncSession, product_name: str) -> AsyncFormGenerator:
    """Offers the nodes that are active and in sync. An async form yields its result last."""
    nodes = await subscription_choice(session, product_types=["Node"])

    class PortOrder(FormPage):
        model_config = ConfigDict(title=f"A new {product_name}")

        customer_id: str
        node: nodes  # type: ignore[valid-type]  # made a moment ago, from what there is
        port_name: PortName
        enabled: bool = True

    order = yield PortOrder
    yield order.model_dump()


@step("Construct the port")
async def construct(
    session: AsyncSession, product: UUID, customer_id: str, node: Node, port_name: str, enabled: bool
) -> State:
    """Make the subscription. The state holds the node's id; asking for a ``Node`` under that name loads it."""
    subscription = await PortInactive.from_product_id(session, product, customer_id)
    subscription.port.port_name = port_name
    subscription.port.enabled = enabled
    subscription.port.node = node.node
    return {"subscription": subscription}


@create_workflow("Create a port", initial_input_form=create_form)
def create_port() -> StepList:
    """Make it known, configure it."""
    return begin >> construct >> provision_remotely


def modify_form(subscription: Port) -> FormGenerator:
    """Ask for one page."""

    class PortChange(FormPage):
        model_config = ConfigDict(title=subscription.description)

        enabled: bool = subscription.port.enabled

    change = yield PortChange
    return change.model_dump()


@step("Enable or disable the port")
async def change_enabled(subscription: Port, enabled: bool) -> State:
    """Write down what shall be."""
    subscription.port.enabled = enabled
    return {"subscription": subscription}


@modify_workflow("Enable or disable a port", initial_input_form=modify_form)
def modify_port() -> StepList:
    """Write it down, make it so."""
    return begin >> change_enabled >> configure


async def speed_form(session: AsyncSession, subscription: Port) -> AsyncFormGenerator:
    """Return the products that ports can be of."""
    products = await product_choice(session, "create_port")

    class SpeedChange(FormPage):
        model_config = ConfigDict(title=subscription.description)

        new_product: products  # type: ignore[valid-type]

    change = yield SpeedChange
    yield change.model_dump()


@step("Move to the other product")
async def move(session: AsyncSession, subscription: Port, new_product: UUID) -> State:
    """Change the product; the blocks stay as they are, and the speed, a fixed input, is the new product's."""
    return {"subscription": await Port.from_other_product(session, subscription, new_product)}


@modify_workflow("Change the speed of a port", initial_input_form=speed_form)
def change_port_speed() -> StepList:
    """Another product, another description, another configuration; the same subscription."""
    return begin >> move >> describe >> configure


@validate_workflow("Compare a port with the network")
def validate_port() -> StepList:
    """Look, and change nothing."""
    return begin >> compare


@terminate_workflow("Terminate a port")
def terminate_port() -> StepList:
    """Refused by the engine as long as something runs over it."""
    return begin >> remove
