"""A port of a router."""

from examples.ported.products.product_blocks.node import NodeBlock, NodeBlockInactive, NodeBlockProvisioning
from orchestrator.domain.base import ProductBlockModel
from orchestrator.types import SubscriptionLifecycle, strEnum


class PortMode(strEnum):
    """How frames are marked."""

    TAGGED = "tagged"
    UNTAGGED = "untagged"


class PortBlockInactive(ProductBlockModel, product_block_name="Port"):
    """A port that is being ordered."""

    port_name: str | None = None
    port_mode: PortMode | None = None
    port_description: str | None = None
    enabled: bool | None = None
    ims_id: int | None = None
    node: NodeBlockInactive | None = None


class PortBlockProvisioning(PortBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A port that is being set up."""

    port_name: str
    port_mode: PortMode
    enabled: bool
    node: NodeBlockProvisioning


class PortBlock(PortBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A port in service."""

    ims_id: int
    node: NodeBlock
