"""The products: nodes of a network in two roles, and lines between nodes. A line's ports use the blocks of the nodes."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY, ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle

ACTIVE, PROVISIONING = SubscriptionLifecycle.ACTIVE, SubscriptionLifecycle.PROVISIONING


class Role(StrEnum):
    """What a node is for."""

    P = "P"
    PE = "PE"


class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
    """``renamed`` counts how often, so that a step that was stored twice would show."""

    node_name: str | None = None
    ims_id: int | None = None
    renamed: int = 0
    tags: list[str] = Field(default_factory=list)


class NodeBlockProvisioning(NodeBlockInactive, lifecycle=[PROVISIONING]):
    node_name: str


class NodeBlock(NodeBlockProvisioning, lifecycle=[ACTIVE]):
    ims_id: int


class NodeInactive(SubscriptionModel, is_base=True):
    role: Role
    node: NodeBlockInactive


class NodeProvisioning(NodeInactive, lifecycle=[PROVISIONING]):
    node: NodeBlockProvisioning


class Node(NodeProvisioning, lifecycle=[ACTIVE]):
    node: NodeBlock


class PortBlockInactive(ProductBlockModel, product_block_name="Port"):
    vlan: int | None = None
    node: NodeBlockInactive | None = None


class PortBlock(PortBlockInactive, lifecycle=[ACTIVE]):
    vlan: int
    node: NodeBlockInactive


class LineInactive(SubscriptionModel, is_base=True):
    speed: Literal[1000, 10000]
    ports: list[PortBlockInactive] = Field(default_factory=list)


class Line(LineInactive, lifecycle=[ACTIVE]):
    ports: list[PortBlock]  # type: ignore[assignment]  # narrower, as each lifecycle's is


SUBSCRIPTION_MODEL_REGISTRY.update(
    {"Node P": Node, "Node core": Node, "Node PE": Node, "Line 1G": Line, "Line 10G": Line}
)
