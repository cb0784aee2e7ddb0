"""When a command was published again, and what consumers have received and hold of each queue.

Revision ID: 0028
Revises: 0027
Create Date: 2026-11-26

None of the columns is indexed: a step changes none of them, and a heartbeat stays a heap-only update.
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty."""
    op.execute("ALTER TABLE processes ADD COLUMN published_at timestamptz")
    op.execute("ALTER TABLE consumers ADD COLUMN received jsonb, ADD COLUMN held uuid[]")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE consumers DROP COLUMN held, DROP COLUMN received")
    op.execute("ALTER TABLE processes DROP COLUMN published_at")
