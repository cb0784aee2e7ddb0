"""The project's workflows and its rules about them; the rules of ``…_enrollment`` and ``modify_description`` are the seed's."""

from __future__ import annotations

from orchestrator.services.subscriptions import (
    WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS,
    WF_USABLE_MAP,
    WF_USABLE_WHILE_OUT_OF_SYNC,
)
from orchestrator.workflows import LazyWorkflowInstance
from tests.acceptance.network import products as products

NODES, ENROLLED, LINES = ("Node P", "Node core"), ("Node PE",), ("Line 1G", "Line 10G")

_WORKFLOWS: dict[str, dict[str, tuple[str, ...]]] = {
    "nodes": {
        "create_node": NODES,
        "modify_node": NODES,
        "move_node": NODES,
        "terminate_node": NODES,
        "validate_node": NODES,
        "reconcile_node": NODES,
        "modify_description": (*NODES, *ENROLLED, *LINES),
    },
    "enrollment": {
        "create_node_enrollment": ENROLLED,
        "validate_node_enrollment": ENROLLED,
        "provision_node_enrollment": ENROLLED,
        "modify_node_enrollment": ENROLLED,
        "terminate_node_enrollment": ENROLLED,
    },
    "lines": {"create_line": LINES, "modify_line": LINES, "terminate_line": LINES},
    "careless": {"careless_change": NODES},
    "permissions": {"guarded_change": NODES, "seasonal_change": NODES},
    "models": {"task_look_at_models": (), "task_change_both": (), "task_tell_all": (), "task_end_all": ()},
}

for _module, _names in _WORKFLOWS.items():
    for _name, _products in _names.items():
        LazyWorkflowInstance(f"{__name__}.{_module}", _name, products=_products)

WF_USABLE_MAP.update(
    {
        "validate_node_enrollment": ["active", "provisioning"],
        "provision_node_enrollment": ["active", "provisioning"],
        "modify_node_enrollment": ["provisioning"],
    }
)

WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS.update(
    {
        "modify_node_enrollment": True
    }
)  # fmt: skip

WF_USABLE_WHILE_OUT_OF_SYNC.extend(
    [
        "modify_description"
    ]
)  # fmt: skip

WF_USABLE_MAP["terminate_node_enrollment"] = ["provisioning"]
WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS["terminate_node_enrollment"] = False
