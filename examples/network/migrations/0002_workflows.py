"""The network's workflows, and which products have them.

Written by ``orchestrator db migrate-workflows`` and tidied by hand: a table instead of twenty calls, and what reads a type's
products from the database instead of naming them.

Revision ID: network0002
Revises: network0001
Create Date: 2026-11-23
"""

from __future__ import annotations

from alembic import op

from orchestrator.db.registration import register_task, register_workflow, remove_workflow

revision = "network0002"
down_revision = "network0001"
branch_labels = None
depends_on = None

WORKFLOWS = (
    # name, target, type of the products that have it, description
    ("create_node", "CREATE", "Node", "Create a node"),
    ("modify_node", "MODIFY", "Node", "Change the management address of a node"),
    ("validate_node", "VALIDATE", "Node", "Compare a node with the network"),
    ("terminate_node", "TERMINATE", "Node", "Terminate a node"),
    ("create_port", "CREATE", "Port", "Create a port"),
    ("modify_port", "MODIFY", "Port", "Enable or disable a port"),
    ("change_port_speed", "MODIFY", "Port", "Change the speed of a port"),
    ("validate_port", "VALIDATE", "Port", "Compare a port with the network"),
    ("terminate_port", "TERMINATE", "Port", "Terminate a port"),
    ("create_core_link", "CREATE", "Core link", "Create a core link"),
    ("modify_core_link", "MODIFY", "Core link", "Change the metric of a core link"),
    ("validate_core_link", "VALIDATE", "Core link", "Compare a core link with the network"),
    ("terminate_core_link", "TERMINATE", "Core link", "Terminate a core link"),
    ("create_l2vpn", "CREATE", "L2VPN", "Create an L2VPN"),
    ("modify_l2vpn", "MODIFY", "L2VPN", "Change the VLANs of an L2VPN"),
    ("validate_l2vpn", "VALIDATE", "L2VPN", "Compare an L2VPN with the network"),
    ("terminate_l2vpn", "TERMINATE", "L2VPN", "Terminate an L2VPN"),
)
FOR_EVERYTHING = (
    ("modify_description", "MODIFY", "Change the description of a subscription"),
    ("reconcile_service", "RECONCILE", "Make the network what the subscription says"),
)
PRODUCTS = ("Node Cisco", "Node Nokia", "Port 10G", "Port 100G", "Core link", "L2VPN")


def upgrade() -> None:
    """Apply. ``modify_note`` needs no line: it ships with the engine, and each upgrade links it to all products."""
    for name, target, product_type, description in WORKFLOWS:
        register_workflow(op.get_bind(), name=name, target=target, product_type=product_type, description=description)
    for name, target, description in FOR_EVERYTHING:
        register_workflow(op.get_bind(), name=name, target=target, products=PRODUCTS, description=description)
    register_task(op.get_bind(), name="validate_all_nodes", description="Compare all nodes with the network")


def downgrade() -> None:
    """Undo."""
    for name, *_ in (*WORKFLOWS, *FOR_EVERYTHING, ("validate_all_nodes",)):
        remove_workflow(op.get_bind(), name)
