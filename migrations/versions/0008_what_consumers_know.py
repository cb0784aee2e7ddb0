"""Each consumer reports which workflows it can run, and which it cannot because their modules are broken.

Revision ID: 0008
Revises: 0007
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. They stay empty for consumers of older versions, which report nothing."""
    for name in ("knows", "broken"):
        op.add_column(
            "consumers", sa.Column(name, postgresql.JSONB(none_as_null=True, astext_type=Text()), nullable=True)
        )


def downgrade() -> None:
    """Drop them."""
    for name in ("knows", "broken"):
        op.drop_column("consumers", name)
