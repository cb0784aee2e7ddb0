"""An L2VPN: two or more places of a customer joined as if by one cable.

Two kinds of blocks of its own: the circuit, and for each place an attachment, which has the VLAN and holds the block of a
port. The port belongs to its own subscription and may carry attachments of many L2VPNs.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Len

from examples.network.products.port import PortBlock, PortBlockInactive, PortBlockProvisioning
from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle


class AttachmentBlockInactive(ProductBlockModel, product_block_name="Attachment"):
    """One end of a circuit: a VLAN on a port."""

    vlan: int | None = None
    port: PortBlockInactive | None = None


class AttachmentBlockProvisioning(AttachmentBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """An end that is being set up."""

    vlan: int
    port: PortBlockProvisioning


class AttachmentBlock(AttachmentBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """An end in service."""

    port: PortBlock


class CircuitBlockInactive(ProductBlockModel, product_block_name="Circuit"):
    """What joins the ends."""

    controller_id: int | None = None
    attachments: list[AttachmentBlockInactive]


class CircuitBlockProvisioning(CircuitBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A circuit that is being set up: one with a single end would lead nowhere."""

    attachments: Annotated[list[AttachmentBlockProvisioning], Len(2)]  # type: ignore[assignment]  # narrower


class CircuitBlock(CircuitBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A circuit in service."""

    controller_id: int
    attachments: Annotated[list[AttachmentBlock], Len(2)]  # type: ignore[assignment]


class L2vpnInactive(SubscriptionModel, is_base=True):
    """A private network of a customer's, over ports of ours."""

    circuit: CircuitBlockInactive


class L2vpnProvisioning(L2vpnInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """An L2VPN that is being set up."""

    circuit: CircuitBlockProvisioning


class L2vpn(L2vpnProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """An L2VPN in service."""

    circuit: CircuitBlock
