"""Count the progress reports of a callback, and say when the newest came.

Revision ID: 0015
Revises: 0014
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Reports that came before are counted as none."""
    op.add_column("callbacks", sa.Column("progress_count", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("callbacks", sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("callbacks", "progress_at")
    op.drop_column("callbacks", "progress_count")
