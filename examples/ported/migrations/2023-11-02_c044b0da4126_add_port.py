"""Add port product.

Revision ID: c044b0da4126
Revises: a84ca2e5e4db
Create Date: 2023-11-02
"""

from uuid import uuid4

from alembic import op

from orchestrator.migrations.helpers import (
    create,
    create_workflow,
    delete,
    delete_workflow,
    ensure_default_workflows,
)
from orchestrator.targets import Target

# revision identifiers, used by Alembic.
revision = "c044b0da4126"
down_revision = "a84ca2e5e4db"
branch_labels = None
depends_on = None

new_products = {
    "products": {
        f"port {speed}G": {
            "product_id": uuid4(),
            "product_type": "Port",
            "description": f"Network port of {speed} Gbit/s",
            "tag": "PORT",
            "status": "active",
            "product_blocks": [
                "Port",
            ],
            "fixed_inputs": {
                "speed": speed,
            },
        }
        for speed in ("10", "100")
    },
    "product_blocks": {
        "Port": {
            "product_block_id": uuid4(),
            "description": "port product block",
            "tag": "PORT",
            "status": "active",
            "resources": {
                "port_name": "Unique name of the port",
                "port_mode": "Mode of the port",
                "port_description": "Description of the port",
                "enabled": "Is the port enabled?",
                "ims_id": "ID of the port in the inventory management system",
            },
            "depends_on_block_relations": [
                "Node",
            ],
        },
    },
    "workflows": {},
}

new_workflows = [
    {
        "name": "create_port",
        "target": Target.CREATE,
        "description": "Create port",
        "product_type": "Port",
    },
    {
        "name": "modify_port",
        "target": Target.MODIFY,
        "description": "Modify port",
        "product_type": "Port",
    },
    {
        "name": "terminate_port",
        "target": Target.TERMINATE,
        "description": "Terminate port",
        "product_type": "Port",
    },
    {
        "name": "validate_port",
        "target": Target.VALIDATE,
        "description": "Validate port",
        "product_type": "Port",
    },
]


def upgrade() -> None:
    """Apply."""
    conn = op.get_bind()
    create(conn, new_products)
    for workflow in new_workflows:
        create_workflow(conn, workflow)
    ensure_default_workflows(conn)


def downgrade() -> None:
    """Undo."""
    conn = op.get_bind()
    for workflow in new_workflows:
        delete_workflow(conn, workflow["name"])

    delete(conn, new_products)
