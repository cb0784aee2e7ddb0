"""Which workflows this project has, for which products, and what deviates from the engine's rules about who may run when.

The modules are named here and imported on first use. ``orchestrator db migrate-workflows`` writes the migration that tells the
database the same.
"""

from __future__ import annotations

from examples.network.products import CORE_LINKS, EVERYTHING, L2VPNS, NODES, PORTS
from orchestrator.services.subscriptions import (
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS,
    WF_USABLE_MAP,
    WF_USABLE_WHILE_OUT_OF_SYNC,
)
from orchestrator.workflows import LazyWorkflowInstance

# By default only subscriptions that are active. What is being provisioned may have its description corrected, too.
WF_USABLE_MAP.update({"modify_description": ["active", "provisioning"]})

# By default only terminate workflows. What runs over a port would notice its new speed, too.
WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update({"change_port_speed": True})

# By default only tasks. A description is only for people: it disturbs nobody who is changing something else.
WF_USABLE_WHILE_OUT_OF_SYNC.extend(["modify_description"])

LazyWorkflowInstance("examples.network.workflows.node", "create_node", products=NODES)
LazyWorkflowInstance("examples.network.workflows.node", "modify_node", products=NODES)
LazyWorkflowInstance("examples.network.workflows.node", "validate_node", products=NODES)
LazyWorkflowInstance("examples.network.workflows.node", "terminate_node", products=NODES)

LazyWorkflowInstance("examples.network.workflows.port", "create_port", products=PORTS)
LazyWorkflowInstance("examples.network.workflows.port", "modify_port", products=PORTS)
LazyWorkflowInstance("examples.network.workflows.port", "change_port_speed", products=PORTS)
LazyWorkflowInstance("examples.network.workflows.port", "validate_port", products=PORTS)
LazyWorkflowInstance("examples.network.workflows.port", "terminate_port", products=PORTS)

LazyWorkflowInstance("examples.network.workflows.core_link", "create_core_link", products=CORE_LINKS)
LazyWorkflowInstance("examples.network.workflows.core_link", "modify_core_link", products=CORE_LINKS)
LazyWorkflowInstance("examples.network.workflows.core_link", "validate_core_link", products=CORE_LINKS)
LazyWorkflowInstance("examples.network.workflows.core_link", "terminate_core_link", products=CORE_LINKS)

LazyWorkflowInstance("examples.network.workflows.l2vpn", "create_l2vpn", products=L2VPNS)
LazyWorkflowInstance("examples.network.workflows.l2vpn", "modify_l2vpn", products=L2VPNS)
LazyWorkflowInstance("examples.network.workflows.l2vpn", "validate_l2vpn", products=L2VPNS)
LazyWorkflowInstance("examples.network.workflows.l2vpn", "terminate_l2vpn", products=L2VPNS)

LazyWorkflowInstance("examples.network.workflows.every_product", "modify_description", products=EVERYTHING)
LazyWorkflowInstance("examples.network.workflows.every_product", "reconcile_service", products=EVERYTHING)

LazyWorkflowInstance("examples.network.workflows.tasks", "validate_all_nodes")
