"""How many threads of a consumer run functions that go on after their step.

Revision ID: 0029
Revises: 0028
Create Date: 2026-11-26

The column is not indexed: a heartbeat stays a heap-only update.
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE consumers ADD COLUMN threads_left_behind integer NOT NULL DEFAULT 0")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE consumers DROP COLUMN threads_left_behind")
