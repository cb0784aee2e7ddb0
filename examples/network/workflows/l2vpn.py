"""The workflows of L2VPNs."""

from __future__ import annotations

from typing import Annotated, Any, Self
from uuid import UUID

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from examples.network.products.l2vpn import AttachmentBlockInactive, L2vpn, L2vpnInactive
from examples.network.products.port import Port
from examples.network.workflows.by_product import place
from examples.network.workflows.provisioning import compare, configure, describe, provision_remotely, remove
from orchestrator.forms import AsyncFormGenerator, FormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, begin, step
from orchestrator.workflows.pages import subscription_choice
from orchestrator.workflows.utils import create_workflow, modify_workflow, terminate_workflow, validate_workflow

Vlan = Annotated[int, Field(ge=2, le=4094, title="VLAN")]


class Attachment(BaseModel):
    """One end, as the state of the process holds it: the id of the port's subscription, and what is wanted there."""

    port: UUID
    vlan: Vlan


async def create_form(session: AsyncSession, product_name: str) -> AsyncFormGenerator:
    """Offers the ports that are active and in sync."""
    ports = await subscription_choice(session, product_types=["Port"])

    class End(BaseModel):
        port: ports  # type: ignore[valid-type]
        vlan: Vlan

    class L2vpnOrder(FormPage):
        model_config = ConfigDict(title=f"A new {product_name}")

        customer_id: str
        attachments: Annotated[list[End], Len(2, 8)]

        @model_validator(mode="after")
        def _different_ends(self) -> Self:
            if len({(end.port, end.vlan) for end in self.attachments}) < len(self.attachments):
                raise ValueError("two ends are on the same VLAN of the same port")
            return self

    order = yield L2vpnOrder
    yield order.model_dump()


@step("Construct the L2VPN")
async def construct(session: AsyncSession, product: UUID, customer_id: str, attachments: list[Attachment]) -> State:
    """Make the subscription with a block of its own for each end; the ports stay what they are."""
    subscription = await L2vpnInactive.from_product_id(session, product, customer_id)
    for wanted in attachments:
        port = await Port.from_subscription(session, wanted.port)
        block = AttachmentBlockInactive.new(subscription.subscription_id, vlan=wanted.vlan, port=port.port)
        subscription.circuit.attachments.append(block)
    return {"subscription": subscription}


@create_workflow("Create an L2VPN", initial_input_form=create_form)
def create_l2vpn() -> StepList:
    """Make it known, configure it."""
    return begin >> construct >> provision_remotely


def modify_form(subscription: L2vpn) -> FormGenerator:
    """Return a field for each end, which begins with the VLAN that it has."""
    fields: dict[str, Any] = {
        f"vlan_{number}": (Vlan, Field(one.vlan, title=f"VLAN at {place(one.port)}"))
        for number, one in enumerate(subscription.circuit.attachments, 1)
    }
    change = yield create_model("L2vpnChange", __base__=FormPage, **fields)
    return {"vlans": list(change.model_dump().values())}


@step("Change the VLANs")
async def change_vlans(subscription: L2vpn, vlans: list[int]) -> State:
    """Write down what shall be."""
    for attachment, vlan in zip(subscription.circuit.attachments, vlans, strict=True):
        attachment.vlan = vlan
    return {"subscription": subscription}


@modify_workflow("Change the VLANs of an L2VPN", initial_input_form=modify_form)
def modify_l2vpn() -> StepList:
    """Write it down, make it so."""
    return begin >> change_vlans >> describe >> configure


@validate_workflow("Compare an L2VPN with the network")
def validate_l2vpn() -> StepList:
    """Look, and change nothing."""
    return begin >> compare


@terminate_workflow("Terminate an L2VPN")
def terminate_l2vpn() -> StepList:
    """Free the ports."""
    return begin >> remove
