"""Why the engine was paused, notes on processes, and who deleted which process.

Revision ID: 0012
Revises: 0011
Create Date: 2026-11-26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Add the columns, which are empty for what was before, and the table."""
    op.add_column("engine_settings", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("engine_settings_log", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("processes", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("processes", sa.Column("noted_by", sa.Text(), nullable=True))
    op.add_column("processes", sa.Column("noted_at", _TIME, nullable=True))
    op.create_table(
        "deleted_processes",
        sa.Column("process_id", sa.Uuid(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("deleted_by", sa.Text(), nullable=False),
        sa.Column("deleted_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("process_id", name=op.f("pk_deleted_processes")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE ON deleted_processes FOR EACH ROW EXECUTE FUNCTION refuse_update()"
    )


def downgrade() -> None:
    """Drop them, with what was noted."""
    op.drop_table("deleted_processes")
    op.drop_column("processes", "noted_at")
    op.drop_column("processes", "noted_by")
    op.drop_column("processes", "note")
    op.drop_column("engine_settings_log", "reason")
    op.drop_column("engine_settings", "reason")
