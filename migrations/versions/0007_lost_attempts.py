"""Lost attempts of a step are counted by what was seen.

Revision ID: 0007
Revises: 0006
Create Date: 2026-11-26

Programs of the version before work beside this one: they leave the new columns as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = ("interruptions", "crashes")


def upgrade() -> None:
    """Add the columns."""
    for name in COLUMNS:
        op.add_column("processes", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    """Drop them: what was counted begins anew."""
    for name in COLUMNS:
        op.drop_column("processes", name)
