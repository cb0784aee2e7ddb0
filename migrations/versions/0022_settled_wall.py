"""What the clock on the wall showed when a schedule's newest settled slot was due.

Revision ID: 0022
Revises: 0021
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("schedules", sa.Column("settled_wall", sa.DateTime(timezone=False), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("schedules", "settled_wall")
