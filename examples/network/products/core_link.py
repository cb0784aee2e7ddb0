"""A core link: a fibre between two ports of the network, with the addresses and the weight that routing needs."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Annotated

from annotated_types import Len

from examples.network.products.port import PortBlock, PortBlockInactive, PortBlockProvisioning
from orchestrator.domain import ProductBlockModel, SubscriptionModel
from orchestrator.types import SubscriptionLifecycle


class CoreLinkBlockInactive(ProductBlockModel, product_block_name="Core link"):
    """A fibre between two ports."""

    ipv6_prefix: IPv6Network | None = None
    isis_metric: int | None = None
    controller_id: int | None = None
    # Without a smallest length: a list that must have two would begin with two new ports of the link's own.
    ports: list[PortBlockInactive]


class CoreLinkBlockProvisioning(CoreLinkBlockInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A fibre that is being laid: it has exactly two ends."""

    ipv6_prefix: IPv6Network
    isis_metric: int
    ports: Annotated[list[PortBlockProvisioning], Len(2, 2)]  # type: ignore[assignment]  # narrower, and never widened


class CoreLinkBlock(CoreLinkBlockProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A fibre in service."""

    controller_id: int
    ports: Annotated[list[PortBlock], Len(2, 2)]  # type: ignore[assignment]


class CoreLinkInactive(SubscriptionModel, is_base=True):
    """A link between two nodes of the core."""

    core_link: CoreLinkBlockInactive


class CoreLinkProvisioning(CoreLinkInactive, lifecycle=[SubscriptionLifecycle.PROVISIONING]):
    """A core link that is being set up."""

    core_link: CoreLinkBlockProvisioning


class CoreLink(CoreLinkProvisioning, lifecycle=[SubscriptionLifecycle.ACTIVE]):
    """A core link in service."""

    core_link: CoreLinkBlock
