"""The workflows of core links."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from examples.network.products.core_link import CoreLink, CoreLinkInactive
from examples.network.products.port import Port
from examples.network.workflows.provisioning import compare, configure, provision, remove
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.pages import subscription_choice
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow, validate_workflow

Metric = Annotated[int, Field(ge=1, le=16_777_214, title="IS-IS metric")]


async def create_form(session: AsyncSession, product_name: str) -> AsyncFormGenerator:
    """Offers the ports that are active and in sync."""
    ports = await subscription_choice(session, product_types=["Port"])

    class CoreLinkOrder(FormPage):
        model_config = ConfigDict(title=f"A new {product_name}")

        customer_id: str
        port_a: ports  # type: ignore[valid-type]
        port_b: ports  # type: ignore[valid-type]
        ipv6_prefix: IPv6Network
        isis_metric: Metric = 10

        @model_validator(mode="after")
        def _two_ends(self) -> Self:
            if len({self.port_a, self.port_b}) == 1:
                raise ValueError("a fibre ends at two different ports")
            return self

    order = yield CoreLinkOrder
    yield order.model_dump()


@step("Construct the core link")
async def construct(
    session: AsyncSession,
    product: UUID,
    customer_id: str,
    port_a: Port,
    port_b: Port,
    ipv6_prefix: IPv6Network,
    isis_metric: int,
) -> State:
    """Make the subscription; it uses the two ports, which stay what they are."""
    subscription = await CoreLinkInactive.from_product_id(session, product, customer_id)
    subscription.core_link.ports = [port_a.port, port_b.port]
    subscription.core_link.ipv6_prefix = ipv6_prefix
    subscription.core_link.isis_metric = isis_metric
    return {"subscription": subscription}


@create_workflow("Create a core link", initial_input_form=create_form)
def create_core_link() -> StepList:
    """Make it known, have the fibre connected, configure it."""
    return begin >> construct >> provision


def modify_form(subscription: CoreLink) -> FormGenerator:
    """Ask for one page."""

    class CoreLinkChange(FormPage):
        model_config = ConfigDict(title=subscription.description)

        isis_metric: Metric = subscription.core_link.isis_metric

    change = yield CoreLinkChange
    return change.model_dump()


@step("Change the metric")
async def change_metric(subscription: CoreLink, isis_metric: int) -> State:
    """Write down what shall be."""
    subscription.core_link.isis_metric = isis_metric
    return {"subscription": subscription}


@modify_workflow("Change the metric of a core link", initial_input_form=modify_form)
def modify_core_link() -> StepList:
    """Write it down, make it so."""
    return begin >> change_metric >> configure


@validate_workflow("Compare a core link with the network")
def validate_core_link() -> StepList:
    """Look, and change nothing."""
    return begin >> compare


@terminate_workflow("Terminate a core link")
def terminate_core_link() -> StepList:
    """Free the ports."""
    return begin >> remove
