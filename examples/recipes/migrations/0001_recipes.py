"""The examples' table with two sites, and their workflows.

Revision ID: recipes0001
Revises:
Create Date: 2026-11-25
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.db.registration import register_task, register_workflow, remove_workflow

revision = "recipes0001"
down_revision = None
branch_labels = ("project",)
depends_on = "0002"  # the engine's tables must be there first

WORKFLOWS = {
    "read_version": "Read the version of a device",
    "measure_line": "Measure a line",
    "place_router": "Place a router",
}


def upgrade() -> None:
    """Apply."""
    sites = op.create_table(
        "recipes_sites",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("free_racks", sa.Integer(), nullable=False),
    )
    op.bulk_insert(sites, [{"name": "ams", "free_racks": 1}, {"name": "utr", "free_racks": 3}])
    for name, description in WORKFLOWS.items():
        register_workflow(op.get_bind(), name=name, target="SYSTEM", description=description)
    register_task(op.get_bind(), name="count_free_racks", description="Count the free racks")


def downgrade() -> None:
    """Undo."""
    for name in (*WORKFLOWS, "count_free_racks"):
        remove_workflow(op.get_bind(), name)
    op.drop_table("recipes_sites")
