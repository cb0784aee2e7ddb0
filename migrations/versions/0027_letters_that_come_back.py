"""Dead letters that a coordinator puts back by itself.

Revision ID: 0027
Revises: 0026
Create Date: 2026-11-26

People decide about the letters of before, as they had to.
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and an index of the few letters that are to be put back."""
    op.execute(
        "ALTER TABLE dead_letters ADD COLUMN unhandled boolean NOT NULL DEFAULT false,"
        " ADD COLUMN begun smallint NOT NULL DEFAULT 0"
    )
    op.execute("CREATE INDEX ix_dead_letters_unhandled ON dead_letters (died_at) WHERE unhandled AND closed_at IS NULL")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE dead_letters DROP COLUMN begun, DROP COLUMN unhandled")
