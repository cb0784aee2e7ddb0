"""The products of the project, their blocks and their workflows.

Revision ID: network1
Revises:
"""

from __future__ import annotations

from alembic import op

from orchestrator.db.registration import register_product, register_product_block, register_task, register_workflow

revision = "network1"
down_revision = None
branch_labels = ("project",)
depends_on = "0003"

NODES, ENROLLED, LINES = ("Node P", "Node core"), ("Node PE",), ("Line 1G", "Line 10G")


def upgrade() -> None:
    """Apply."""
    connection = op.get_bind()
    register_product_block(connection, name="Node", resource_types=["node_name", "ims_id", "renamed", "tags"])
    register_product_block(connection, name="Port", resource_types=["vlan"], depends_on=["Node"])
    for name, role in (("Node P", "P"), ("Node core", "P"), ("Node PE", "PE")):
        register_product(
            connection, name=name, product_type="Node", fixed_inputs={"role": role}, product_blocks=["Node"]
        )
    for name, speed in (("Line 1G", "1000"), ("Line 10G", "10000")):
        register_product(
            connection, name=name, product_type="Line", fixed_inputs={"speed": speed}, product_blocks=["Port"]
        )
    for name, target, products in (
        ("create_node", "CREATE", NODES),
        ("modify_node", "MODIFY", NODES),
        ("move_node", "MODIFY", NODES),
        ("terminate_node", "TERMINATE", NODES),
        ("validate_node", "VALIDATE", NODES),
        ("reconcile_node", "RECONCILE", NODES),
        ("modify_description", "MODIFY", (*NODES, *ENROLLED, *LINES)),
        ("create_node_enrollment", "CREATE", ENROLLED),
        ("validate_node_enrollment", "VALIDATE", ENROLLED),
        ("provision_node_enrollment", "MODIFY", ENROLLED),
        ("modify_node_enrollment", "MODIFY", ENROLLED),
        ("terminate_node_enrollment", "TERMINATE", ENROLLED),
        ("create_line", "CREATE", LINES),
        ("modify_line", "MODIFY", LINES),
        ("terminate_line", "TERMINATE", LINES),
        ("guarded_change", "MODIFY", NODES),
        ("seasonal_change", "MODIFY", NODES),
        ("careless_change", "MODIFY", NODES),
    ):
        register_workflow(connection, name=name, target=target, description=name, products=products)
    for name in ("task_look_at_models", "task_change_both", "task_tell_all", "task_end_all"):
        register_task(connection, name=name, description=name)


def downgrade() -> None:
    """Undone by dropping the database."""
