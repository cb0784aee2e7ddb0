"""What is large in a state stands apart from what steps change.

Revision ID: 0032
Revises: 0031
Create Date: 2026-11-26

No row is rewritten: a state is divided by the next step that finds it large.
"""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.execute("ALTER TABLE processes ADD COLUMN base jsonb, ADD COLUMN base_sequence integer")


def downgrade() -> None:
    """Make states whole again, and drop the columns."""
    op.execute("UPDATE processes SET state = base || state WHERE base IS NOT NULL")
    op.execute("ALTER TABLE processes DROP COLUMN base, DROP COLUMN base_sequence")
