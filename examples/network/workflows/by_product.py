"""What differs from product to product, as functions that dispatch on the model: steps for all products call these.

``functools.singledispatch`` chooses by the class of its first argument, or the nearest base of it that is registered. These are
registered for the classes of subscriptions that are being provisioned, from which those of active ones derive: so both have them,
and type checkers know that what must be there by then is there.
"""

from __future__ import annotations

from functools import singledispatch

from examples.network.controller import Configuration
from examples.network.products.core_link import CoreLinkBlockProvisioning, CoreLinkProvisioning
from examples.network.products.l2vpn import CircuitBlockProvisioning, L2vpnProvisioning
from examples.network.products.node import NodeBlockProvisioning, NodeProvisioning
from examples.network.products.port import PortBlockProvisioning, PortProvisioning
from orchestrator.domain import SubscriptionModel

RootBlock = NodeBlockProvisioning | PortBlockProvisioning | CoreLinkBlockProvisioning | CircuitBlockProvisioning


@singledispatch
def description(subscription: SubscriptionModel) -> str:
    """Return a subscription in a few words, for lists and choices."""
    return subscription.product.name


@description.register
def _(subscription: NodeProvisioning) -> str:
    return f"{subscription.node.node_name} ({subscription.vendor} {subscription.node.role})"


@description.register
def _(subscription: PortProvisioning) -> str:
    return f"{place(subscription.port)} {subscription.speed}G"


@description.register
def _(subscription: CoreLinkProvisioning) -> str:
    return " – ".join(place(port) for port in subscription.core_link.ports)


@description.register
def _(subscription: L2vpnProvisioning) -> str:
    ends = ", ".join(f"{place(one.port)}.{one.vlan}" for one in subscription.circuit.attachments)
    return f"{subscription.customer_id}: {ends}"


@singledispatch
def configuration(subscription: SubscriptionModel) -> Configuration:
    """Return what the network controller is to configure for a subscription."""
    raise NotImplementedError(f"nobody has said how {type(subscription).__name__} is configured: register it here")


@configuration.register
def _(subscription: NodeProvisioning) -> Configuration:
    node = subscription.node
    return {
        "kind": "node",
        "name": node.node_name,
        "vendor": subscription.vendor.value,
        "role": node.role.value,
        "management_address": str(node.management_address),
    }


@configuration.register
def _(subscription: PortProvisioning) -> Configuration:
    port = subscription.port
    return {"kind": "port", "place": place(port), "speed": subscription.speed, "enabled": port.enabled}


@configuration.register
def _(subscription: CoreLinkProvisioning) -> Configuration:
    link = subscription.core_link
    return {
        "kind": "core link",
        "ends": [place(port) for port in link.ports],
        "ipv6_prefix": str(link.ipv6_prefix),
        "isis_metric": link.isis_metric,
    }


@configuration.register
def _(subscription: L2vpnProvisioning) -> Configuration:
    ends = [{"place": place(one.port), "vlan": one.vlan} for one in subscription.circuit.attachments]
    return {"kind": "l2vpn", "ends": ends}


@singledispatch
def root_block(subscription: SubscriptionModel) -> RootBlock:
    """Return the block that has the number by which the controller knows the subscription."""
    raise NotImplementedError(f"nobody has said where {type(subscription).__name__} keeps its number: register it here")


@root_block.register
def _(subscription: NodeProvisioning) -> RootBlock:
    return subscription.node


@root_block.register
def _(subscription: PortProvisioning) -> RootBlock:
    return subscription.port


@root_block.register
def _(subscription: CoreLinkProvisioning) -> RootBlock:
    return subscription.core_link


@root_block.register
def _(subscription: L2vpnProvisioning) -> RootBlock:
    return subscription.circuit


def place(port: PortBlockProvisioning) -> str:
    """Describe where a port is."""
    return f"{port.node.node_name} {port.port_name}"
