"""The workflow ``modify_note``, which every product has by default.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-23
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Register it, unless the project has a workflow of this name already."""
    op.execute(
        "INSERT INTO workflows (name, target, is_task, description)"
        " SELECT 'modify_note', 'MODIFY', false, 'Change the note of a subscription' WHERE NOT EXISTS"
        " (SELECT 1 FROM workflows WHERE name = 'modify_note' AND deleted_at IS NULL)"
    )


def downgrade() -> None:
    """Remove it; the row stays, because processes of the past point at it."""
    op.execute(
        "DELETE FROM products_workflows USING workflows"
        " WHERE workflows.workflow_id = products_workflows.workflow_id AND workflows.name = 'modify_note'"
    )
    op.execute("UPDATE workflows SET deleted_at = now() WHERE name = 'modify_note' AND deleted_at IS NULL")
