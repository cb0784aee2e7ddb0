"""Processes know which process has started them.

Revision ID: 0023
Revises: 0022
Create Date: 2026-11-26
"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, which rewrites nothing, and an index of the processes that have a parent: none so far."""
    op.execute("ALTER TABLE processes ADD COLUMN parent_id uuid")
    op.execute(
        "CREATE INDEX ix_processes_parent_id ON processes (parent_id, started_at DESC, process_id)"
        " WHERE parent_id IS NOT NULL"
    )


def downgrade() -> None:
    """Drop both."""
    op.execute("ALTER TABLE processes DROP COLUMN parent_id")
