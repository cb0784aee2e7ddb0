"""What customers can have. Which product has which model is said here, and nowhere else in the code."""

from __future__ import annotations

from examples.network.products.core_link import CoreLink
from examples.network.products.l2vpn import L2vpn
from examples.network.products.node import Node
from examples.network.products.port import Port
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY

NODES = ("Node Cisco", "Node Nokia")
PORTS = ("Port 10G", "Port 100G")
CORE_LINKS = ("Core link",)
L2VPNS = ("L2VPN",)
EVERYTHING = (*NODES, *PORTS, *CORE_LINKS, *L2VPNS)

SUBSCRIPTION_MODEL_REGISTRY.update(
    {
        **dict.fromkeys(NODES, Node),
        **dict.fromkeys(PORTS, Port),
        **dict.fromkeys(CORE_LINKS, CoreLink),
        **dict.fromkeys(L2VPNS, L2vpn),
    }
)
