"""The products."""

from examples.ported.products.product_types.node import Node
from examples.ported.products.product_types.port import Port
from orchestrator.domain import SUBSCRIPTION_MODEL_REGISTRY

SUBSCRIPTION_MODEL_REGISTRY.update({"node Cisco": Node, "node Nokia": Node, "port 10G": Port, "port 100G": Port})
