"""A router, as a subscription."""

from examples.ported.products.product_blocks.node import NodeBlock, NodeBlockInactive, NodeBlockProvisioning
from orchestrator.domain.base import SubscriptionModel
from orchestrator.types import SubscriptionLifecycle, strEnum


class NodeType(strEnum):
    """Who has made it."""

    CISCO = "Cisco"
    NOKIA = "Nokia"


class NodeInactive(SubscriptionModel, is_base=True):
    """A router that is being ordered."""

    node_type: NodeType
    node: NodeBlockInactive


class NodeProvisioning(NodeInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A router that is being installed."""

    node: NodeBlockProvisioning


class Node(NodeProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A router in service."""

    node: NodeBlock
