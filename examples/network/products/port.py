"""A port: a place on a node where something can be plugged in.

Its block holds the block of its node, which belongs to the node's own subscription: the port *uses* the node. So the node
cannot be terminated before the port, and who looks at the node sees its ports.
"""

from __future__ import annotations

from typing import Literal

from examples.network.products.node import NodeBlock, NodeBlockInactive, NodeBlockProvisioning
from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle


class PortBlockInactive(ProductBlockModel, product_block_name="Port"):
    """A place on a node."""

    port_name: str | None = None
    enabled: bool | None = None
    controller_id: int | None = None
    # Without the None a new port would begin with a new node of its own.
    node: NodeBlockInactive | None = None


class PortBlockProvisioning(PortBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A port that is being set up."""

    port_name: str
    enabled: bool
    node: NodeBlockProvisioning


class PortBlock(PortBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A port in service."""

    controller_id: int
    node: NodeBlock


class PortInactive(SubscriptionModel, is_base=True):
    """A port on a node, of some speed in Gbit/s."""

    speed: Literal[10, 100]
    port: PortBlockInactive


class PortProvisioning(PortInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A port that is being set up."""

    port: PortBlockProvisioning


class Port(PortProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A port in service."""

    port: PortBlock
