"""A router."""

from orchestrator.domain.base import ProductBlockModel
from orchestrator.types import SubscriptionLifecycle


class NodeBlockInactive(ProductBlockModel, product_block_name="Node"):
    """A router that is being ordered."""

    node_name: str | None = None
    ims_id: int | None = None


class NodeBlockProvisioning(NodeBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A router that is being installed."""

    node_name: str


class NodeBlock(NodeBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A router in service."""

    ims_id: int
