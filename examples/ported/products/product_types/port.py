"""A port, as a subscription."""

from examples.ported.products.product_blocks.port import PortBlock, PortBlockInactive, PortBlockProvisioning
from orchestrator.domain.base import SubscriptionModel
from orchestrator.types import SubscriptionLifecycle, strEnum


class PortSpeed(strEnum):
    """Gbit/s."""

    TEN = "10"
    HUNDRED = "100"


class PortInactive(SubscriptionModel, is_base=True):
    """A port that is being ordered."""

    speed: PortSpeed
    port: PortBlockInactive


class PortProvisioning(PortInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A port that is being set up."""

    port: PortBlockProvisioning


class Port(PortProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A port in service."""

    port: PortBlock
