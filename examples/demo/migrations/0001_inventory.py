"""The inventory's tables, two routers, and the workflow ``provision_line``.

Written by ``orchestrator db migrate-workflows`` and completed by hand.

Revision ID: demo0001
Revises:
Create Date: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.db.registration import register_workflow, remove_workflow

revision = "demo0001"
down_revision = None
branch_labels = ("project",)
depends_on = "0002"  # the engine's tables must be there first


def upgrade() -> None:
    """Apply."""
    nodes = op.create_table(
        "inventory_nodes",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ports", sa.Integer(), nullable=False),
    )
    op.create_table(
        "inventory_lines",
        sa.Column("line_id", sa.UUID(), primary_key=True, server_default=sa.func.gen_random_uuid()),
        sa.Column("process_id", sa.UUID(), nullable=False),
        sa.Column("node", sa.Text(), sa.ForeignKey("inventory_nodes.name"), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("bandwidth", sa.Integer(), nullable=False),
        sa.Column("protected", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.UniqueConstraint("node", "port"),
    )
    op.create_table(
        "inventory_burn_ins",
        sa.Column("burn_in_id", sa.Integer(), sa.Identity(), primary_key=True),
        sa.Column("line_id", sa.UUID(), sa.ForeignKey("inventory_lines.line_id"), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
    )
    op.bulk_insert(nodes, [{"name": "ams-1", "ports": 24}, {"name": "utr-1", "ports": 24}])
    register_workflow(op.get_bind(), name="provision_line", target="CREATE", description="Provision a line")


def downgrade() -> None:
    """Undo."""
    remove_workflow(op.get_bind(), "provision_line")
    op.drop_table("inventory_burn_ins")
    op.drop_table("inventory_lines")
    op.drop_table("inventory_nodes")
