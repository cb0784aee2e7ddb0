"""Each consumer's row says how long it may be silent, when it last responded, and what blocks it.

Revision ID: 0006
Revises: 0005
Create Date: 2026-11-26

All columns have defaults: a consumer of the version before writes its row without them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = (
    sa.Column("heartbeat_interval", sa.Float(), server_default=sa.text("2"), nullable=False),
    sa.Column("presumed_dead_after", sa.Float(), server_default=sa.text("10"), nullable=False),
    sa.Column("responsive_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
    sa.Column("blocked_by", postgresql.JSONB(), nullable=True),
)


def upgrade() -> None:
    """Add the columns."""
    for column in COLUMNS:
        op.add_column("consumers", column)


def downgrade() -> None:
    """Drop them: programs judge a consumer's silence by their own settings again."""
    for column in COLUMNS:
        op.drop_column("consumers", column.name)
