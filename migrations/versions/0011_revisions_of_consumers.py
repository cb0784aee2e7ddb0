"""Each consumer reports up to which revisions its code goes.

Revision ID: 0011
Revises: 0010
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. It stays empty for consumers of older versions, which report nothing."""
    op.add_column("consumers", sa.Column("revisions", postgresql.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("consumers", "revisions")
