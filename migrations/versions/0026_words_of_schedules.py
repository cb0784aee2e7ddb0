"""What the list of schedules is searched by.

Revision ID: 0026
Revises: 0025
Create Date: 2026-11-26

Without an index: schedules are thousands at most, and a slot that starts would have to change it.
"""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; PostgreSQL fills it."""
    op.execute(
        """
        ALTER TABLE schedules ADD COLUMN words tsvector GENERATED ALWAYS AS (
            search_words(left(name, 1000) || ' ' || left(workflow, 1000) || ' ' || left(coalesce(note, ''), 4000))) STORED
        """
    )


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE schedules DROP COLUMN words")
