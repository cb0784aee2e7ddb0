"""Changes of schedules notify the API programs, so that user interfaces fetch them again.

Revision ID: 0019
Revises: 0018
Create Date: 2026-11-26
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the trigger. For each row: a statement that finds nothing to change must not notify."""
    op.execute(
        "CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON schedules FOR EACH ROW"
        " EXECUTE FUNCTION notify_change('schedules')"
    )


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TRIGGER notify_change ON schedules")
