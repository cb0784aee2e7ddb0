"""A node: a router in a rack. Everything else stands on it.

Three classes each for the block and the subscription. The first one names all fields and lets them be empty, because a new
subscription is empty, and a terminated one may be anything; the others say what must be there by the time that an engineer goes
to the rack, and by the time that customers rely on it.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv6Address

from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle


class Vendor(StrEnum):
    """Who has built it. A fixed input: it comes from the product, and two vendors are two products."""

    CISCO = "Cisco"
    NOKIA = "Nokia"


class Role(StrEnum):
    """Where it stands in the network: at the provider's core, or at its edge, where customers are."""

    P = "P"
    PE = "PE"


class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
    """A router."""

    node_name: str | None = None
    role: Role | None = None
    management_address: IPv6Address | None = None
    controller_id: int | None = None


class NodeBlockProvisioning(NodeBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A router that is being set up: what it shall be is known."""

    node_name: str
    role: Role
    management_address: IPv6Address


class NodeBlock(NodeBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A router in service: the network controller knows it by a number."""

    controller_id: int


class NodeInactive(SubscriptionModel, is_base=True):
    """A router in the network."""

    vendor: Vendor
    node: NodeBlockInactive


class NodeProvisioning(NodeInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A node that is being set up."""

    node: NodeBlockProvisioning


class Node(NodeProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A node in service."""

    node: NodeBlock
