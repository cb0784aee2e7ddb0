"""The workflows, and what deviates from the rules about who may run when."""

from orchestrator.services.subscriptions import WF_USABLE_MAP
from orchestrator.workflows import LazyWorkflowInstance

WF_USABLE_MAP.update({"terminate_port": ["active", "provisioning"]})

LazyWorkflowInstance("examples.ported.workflows.node.create_node", "create_node")
LazyWorkflowInstance("examples.ported.workflows.port.create_port", "create_port")
LazyWorkflowInstance("examples.ported.workflows.port.modify_port", "modify_port")
LazyWorkflowInstance("examples.ported.workflows.port.terminate_port", "terminate_port")
LazyWorkflowInstance("examples.ported.workflows.port.validate_port", "validate_port")
